"""Corpus → cleaned text → vocabulary → token ids → batches. Imports no engine."""
