"""Small foreign tasks: each a module and its data as a stranger would write them, without a word about our engine."""
