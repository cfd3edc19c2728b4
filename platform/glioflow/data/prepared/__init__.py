"""Prepared cohorts: preprocessed once per case, kept as memory-mapped arrays, local or behind a URI."""
