"""Prepared cohorts: preprocessed once per case, stored as memory-mapped arrays, on disk or at a URI."""
