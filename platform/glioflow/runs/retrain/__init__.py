"""The loop closed: a champion trained again on its cohort with the corrections that readers sent back."""
