"""Corpus → cleaned text → vocabulary → ids → batches. Never imports an engine."""
