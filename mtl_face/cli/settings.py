"""`settings`: list every setting with its default, its meaning and what it affects."""

import argparse

from mtl_face import config as config_lib

CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds no flag."""


def run(config: None, options: argparse.Namespace) -> int:
    for word, meaning in config_lib.AFFECTS.items():
        print(f"({word}) affects {meaning}")
    for name, field in config_lib.fields():
        facts = field.metadata
        choices = f" [{', '.join(facts['choices'])}]" if facts["choices"] else ""
        print(f"--config.{name}={field.default}{choices}  ({facts['affects']})")
        print(f"    {facts['meaning']}")
    return 0
