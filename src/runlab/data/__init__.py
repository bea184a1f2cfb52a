"""Datasets in memory, and data loaders that can be resumed and shared exactly."""
