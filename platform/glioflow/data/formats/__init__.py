"""Cohort formats: one module for each, and those that detect the format of a folder or a study."""
