"""Runs that measure and keep no trained network: evaluate, compare, audit, associate, survival."""
