"""Whole runs: train, cross-validate, search, fit the survival stage. Joins the rooms above on Ray."""
