"""Cross-validation by patient as a run, and its out-of-fold record."""
