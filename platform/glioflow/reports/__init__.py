"""Plots from plain arrays and tables; one look for all. Knows no run, no cohort, no model."""
