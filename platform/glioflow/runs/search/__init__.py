"""Hyperparameter search as a run: Ray Tune over an Optuna study."""
