"""The networks in PyTorch: for GPUs and experiments, and the reference for the other engines."""
