"""`settings`: list every setting with its default and meaning."""

import argparse

from mtl_face import config as config_lib

HELP = "list every setting with its default and meaning"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds no flag."""


def run(config: None, options: argparse.Namespace) -> int:
    """Prints a setting with its meaning after the other; returns 0."""
    del config, options
    for name, field in config_lib.fields():
        choices = field.metadata["choices"]
        words = f" [{', '.join(choices)}]" if choices else ""
        print(f"--config.{name}={field.default}{words}\n    {field.metadata['meaning']}")
    return 0
