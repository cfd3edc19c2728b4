"""Retraining of a champion on its cohort with the corrections that readers sent back."""
