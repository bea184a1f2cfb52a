"""Training: the loop, exact resume, logging intervals."""
