"""The version of the package, which runs and bundles record."""

__version__ = "0.1.0"
