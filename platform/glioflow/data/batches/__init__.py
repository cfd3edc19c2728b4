"""Training batches: which slices or patches, how they are augmented, how they reach the network."""
