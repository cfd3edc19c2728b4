"""Whole runs on Ray: train, cross-validate, search, fit the survival stage; joins the packages above."""
