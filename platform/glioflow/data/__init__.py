"""From files to cases, and from cases to batches: formats, checks, preprocessing, prepared cohorts and splits."""
