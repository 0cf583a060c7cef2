"""What the command line runs: reads a config, wires the parts, nothing else."""
