"""The network: Flax modules, built from the section `model` of a config, without I/O."""
