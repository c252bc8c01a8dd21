"""Corpus → cleaned text → vocabulary → ids → batches. Imports no engine."""
