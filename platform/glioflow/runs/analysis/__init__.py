"""Runs that measure and train nothing to keep: evaluate, compare, audit, associate, survival."""
