"""Computation of a loaded version: batching, compiled networks, and the answer for a study."""
