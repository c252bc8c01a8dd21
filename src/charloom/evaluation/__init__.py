"""Baselines for the score of a model."""
