"""Checks of a cohort, of one case, and of how far a study is from the training cohort."""
