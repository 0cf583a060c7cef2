"""Weights as files, for use outside of the run that made them."""
