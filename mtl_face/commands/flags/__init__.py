"""What the commands of `run.py` can be told, a module for each group of commands."""
