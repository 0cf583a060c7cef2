"""`summarise`: summary, events and timeline of the videos of a table that `predict` wrote."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "table", "TABLE", "what run.py predict wrote: .csv, .parquet or .jsonl")
    flags.path(
        parser,
        "--output",
        "FILE",
        "FILE_summary.csv, a row for each person of a video, and FILE_events.csv (default: the "
        "summary is printed)",
    )
    flags.path(parser, "--plot", "FILE", "timeline of the videos: .svg, .png or .html")
    flags.event_rules(parser)


def run(config: Config | None, options: argparse.Namespace) -> int:
    from mtl_face.evaluation import face_files
    from mtl_face.evaluation.face_events import EventRules
    from mtl_face.evaluation.face_summary import summarise
    from mtl_face.report import face_timeline

    rules = EventRules.from_texts(options.event_rule)
    if options.plot is not None:
        face_timeline.check_ending(options.plot)
    faces = face_files.read(options.table)
    summary = summarise(faces, rules)
    print("\n".join(summary.in_words()))
    if options.output is None:
        print("next: --output=FILE keeps all numbers, and the events")
    else:
        for path in summary.write(options.output):
            print(f"summary: {path}")
    if options.plot is not None:
        face_timeline.write_timeline(options.plot, faces)
        print(f"timeline: {options.plot}")
    return 0
