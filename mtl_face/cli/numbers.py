"""Types of flags that are numbers."""

import argparse


def natural_number(text: str) -> int:
    """0, 1, 2, ...; ArgumentTypeError for anything else."""
    return _whole_number(text, at_least=0)


def positive_number(text: str) -> int:
    """1, 2, ...; ArgumentTypeError for anything else."""
    return _whole_number(text, at_least=1)


def _whole_number(text: str, *, at_least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = at_least - 1
    if value < at_least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {at_least} on")
    return value
