"""Synthetic cohorts, written to disk as the real ones are."""
