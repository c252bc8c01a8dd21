"""Import of models from PyTorch and Keras."""
