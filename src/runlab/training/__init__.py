"""Training: what a config describes is built, trained, stopped, resumed, tested."""
