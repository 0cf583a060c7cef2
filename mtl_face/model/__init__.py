"""The network: Flax modules without input or output, and without configuration objects."""
