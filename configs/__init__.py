"""Experiments: one file each, `get_config()` returns its settings."""
