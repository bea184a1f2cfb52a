"""Sweeps: grid and search, jobs that fail alone, workers, the table of results."""
