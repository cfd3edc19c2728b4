"""From disk to `Case`, and from `Case` to batches: cohort formats, checks, preprocessing, prepared cohorts, splits."""
