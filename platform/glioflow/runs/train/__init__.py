"""One training as a run."""
