"""What a training step takes on hardware that is not at hand, told by compilers alone."""

UNREAD = "unread"
"""Stands for a folder of shards where nothing is read, so that settings may lack a data.root."""
