"""`train`: train, evaluate the best checkpoint and write a report; goes on where it stopped."""

import argparse

from mtl_face import libraries
from mtl_face.cli import flags
from mtl_face.cli.progress import Timing
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "--workdir", "DIR", "folder of the run", required=True)
    flags.skip_bad_rows(parser)
    parser.add_argument(
        "--profile_steps",
        metavar="START:COUNT",
        help="trace COUNT steps from step START on, into WORKDIR/profile",
    )
    parser.add_argument(
        "--accept_changed_data",
        action="store_true",
        help="go on although rows or labels have changed since the newest checkpoint",
    )
    parser.add_argument(
        "--timing",
        action="store_true",
        help="after the first step, list the seconds that each part of the start took",
    )
    group = parser.add_argument_group(
        "several processes",
        "the same line on every host; TPU pods, SLURM (srun) and Open MPI (mpirun) need no flags",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is reached")
    group.add_argument(
        "--num_processes",
        type=flags.positive_number,
        metavar="N",
        help="processes in all; 1 runs alone, whatever the launcher sets",
    )
    group.add_argument(
        "--process_id", type=flags.natural_number, metavar="I", help="number of this one, from 0"
    )
    group.add_argument(
        "--join_timeout_s",
        type=flags.positive_number,
        default=300,
        metavar="S",
        help="longest wait for all processes, in seconds (default: 300)",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    """Trains; returns 0, or 128 + the signal that stopped the run."""
    timing = Timing()
    timing("settings")
    with libraries.no_collector():  # modules stay
        from mtl_face.run.processes import digest
        from mtl_face.run.train import train
        from mtl_face.training.loop import FIRST_STEP
        from mtl_face.training.monitoring import parse_steps
        from mtl_face.training.processes import distributed

    timing("imports")

    def lap(part: str) -> None:
        timing(part)
        if part == FIRST_STEP and options.timing and distributed.is_writer():
            print("\n".join(timing.lines()))

    traced = None if options.profile_steps is None else parse_steps(options.profile_steps)
    seconds = options.join_timeout_s
    place = distributed.find_place(
        options.coordinator, options.num_processes, options.process_id, timeout_seconds=seconds
    )
    if place is not None and place.process_id == 0:
        print(f"{place}; --num_processes=1 runs alone")
    with distributed.joined(place, settings=digest(config), timeout_seconds=seconds):
        result = train(
            config,
            options.workdir,
            profile_steps=traced,
            accept_changed_data=options.accept_changed_data,
            lap=lap,
        )
    return 0 if result.stopped_by is None else 128 + int(result.stopped_by)
