"""What a model's score is compared with."""
