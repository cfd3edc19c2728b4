"""From runs to model versions and back: register, export, reproduce, cleanup."""
