"""Where metrics, pictures and the config go besides the run folder."""
