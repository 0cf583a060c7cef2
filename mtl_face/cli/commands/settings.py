"""`settings`: list every setting with its value, its meaning and what it affects.

The values are the defaults, or with --config those of that experiment.
"""

import argparse

from mtl_face import config as config_lib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds no flag."""


def run(config: config_lib.Config | None, options: argparse.Namespace) -> int:
    for word, meaning in config_lib.AFFECTS.items():
        print(f"({word}) affects {meaning}")
    chosen = {} if config is None else config_lib.flat(config)
    for name, field in config_lib.fields():
        facts = field.metadata
        choices = f" [{', '.join(facts['choices'])}]" if facts["choices"] else ""
        print(f"--config.{name}={chosen.pop(name, field.default)}{choices}  ({facts['affects']})")
        print(f"    {facts['meaning']}")
    for name, value in chosen.items():  # under names of the experiment's own, as in a mixture
        print(f"--config.{name}={value}")
    return 0
