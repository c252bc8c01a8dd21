"""Recurrent networks in NumPy alone: forward pass, and backward pass by hand. The kernels are compared with it."""
