"""Training batches: which slices or patches are drawn, and how they are augmented."""
