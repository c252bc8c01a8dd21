"""Model folder and prompt in, characters out: on NumPy alone, with every state a value."""
