"""Preprocessing: the pipeline, its steps, and the inverse of every step that moves voxels."""
