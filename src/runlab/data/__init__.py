"""Data: loaders that can be resumed, seeding."""
