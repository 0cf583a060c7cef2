"""`smooth`: smooth a file of predictions over time, video by video."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "--predictions", "FILE", "a .parquet or .csv of predictions", required=True)
    flags.smoothing(parser, "--on", default="30", default_meaning="30, the paper's")
    flags.table_output(parser)


def run(config: Config | None, options: argparse.Namespace) -> int:
    from mtl_face.evaluation import prediction_files
    from mtl_face.evaluation.smoothing import smooth

    smoothing = flags.smoothing_asked(options)
    table = smooth(prediction_files.read(options.predictions), smoothing)
    prediction_files.write(table, options.output)
    print(f"smoothed {len(table)} rows: {smoothing}")
    for line in prediction_files.lost(table, options.output):
        print(line)
    print(f"results: {options.output}")
    score_it = f"python run.py evaluate --predictions={options.output} --truth=ANNOTATIONS"
    print(f"next: {score_it} scores them")
    return 0
