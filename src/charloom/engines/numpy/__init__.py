"""Recurrent networks in NumPy, with backward passes written by hand. The kernels are compared with them."""
