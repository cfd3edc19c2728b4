"""What turns runs into model versions and back: register, export, reproduce, cleanup."""
