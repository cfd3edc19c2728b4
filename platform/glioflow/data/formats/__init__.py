"""Cohort formats: one module a format, and the two that find the right one for a folder or a study."""
