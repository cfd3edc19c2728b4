"""Preprocessing: the pipeline, its steps, and how each step that moves voxels finds its way back."""
