"""The loop: budget → schedule → steps → records and checkpoints. Prints nothing; reports events."""
