"""Checks of a cohort, of a single case, and of a study's distance from the training cohort."""
