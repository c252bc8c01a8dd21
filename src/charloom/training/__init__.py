"""The training loop: settings → run folder → plan → steps → events and checkpoints. Prints nothing; reports events."""
