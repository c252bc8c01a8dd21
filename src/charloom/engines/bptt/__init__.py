"""Recurrent networks by hand: forward, and backward through time, in NumPy alone. Every faster path is judged by it."""
