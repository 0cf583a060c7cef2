"""Training: state, step, optimizer, placement on devices, checkpoints, the loop."""
