"""Generates text from a model folder and a prompt. It needs NumPy only, and every state is a value."""
