"""Synthetic cohorts, written to disk in the layouts of real ones."""
