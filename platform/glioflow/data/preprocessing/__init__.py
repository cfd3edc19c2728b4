"""Preprocessing: the pipeline, its steps, and the way back of every step that moves voxels."""
