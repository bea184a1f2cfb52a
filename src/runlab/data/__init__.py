"""Batches: from memory or from any DataLoader, in an order that can be repeated and resumed."""
