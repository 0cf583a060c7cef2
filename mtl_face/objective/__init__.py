"""The loss, its uncertainties, MixUp and augmentation: pure functions on arrays."""
