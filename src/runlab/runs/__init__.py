"""A run folder: its files, its lock, its record, its checkpoints, how it is resumed."""
