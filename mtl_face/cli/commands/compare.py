"""`compare`: whether two runs or files of predictions differ beyond chance."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, letter in (("first", "A"), ("second", "B")):
        meaning = "folder of an evaluated run, a .parquet or .csv of predictions, or a submission"
        flags.path(parser, name, letter, meaning)
    flags.scoring(parser, required=True)


def run(config: Config | None, options: argparse.Namespace) -> int:
    from mtl_face.evaluation.comparison import summary
    from mtl_face.files import write_json
    from mtl_face.run.score import compare_files

    result = compare_files(options.first, options.second, flags.scoring_of(options))
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    print("\n".join(summary(result)))
    if options.output is None:
        print("next: --output=FILE.json keeps all scores, also by action unit and expression")
    else:
        write_json(options.output, result)
        print(f"results: {options.output}")
    return 0
