"""Evaluates a model on a text: static, dynamic and windowed scores, and baselines, in one `Report`."""
