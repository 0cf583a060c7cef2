"""The embedded data set: rendered faces with known labels in the layout of s-Aff-Wild2."""
