"""Configs: values checked, errors in a line, quick answers. Imports neither torch nor lightning."""
