"""Flags of what needs a network: train, plan, replay, export."""

import argparse
from pathlib import Path

from mtl_face.cli.numbers import natural_number, positive_number


def _workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
    )


def train(parser: argparse.ArgumentParser) -> None:
    """Flags of `train`."""
    _workdir(parser)
    parser.add_argument(
        "--profile_steps",
        metavar="START:COUNT",
        help="trace COUNT steps from step START on, into WORKDIR/profile",
    )
    _processes(parser)


def _processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "the same line on every host; TPU pods, SLURM (srun) and Open MPI (mpirun) need no flags",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is reached")
    group.add_argument(
        "--num_processes",
        type=positive_number,
        metavar="N",
        help="processes in all; 1: alone, though a launcher says otherwise",
    )
    group.add_argument(
        "--process_id", type=natural_number, metavar="I", help="number of this one, from 0"
    )
    group.add_argument(
        "--join_timeout_s",
        type=positive_number,
        default=300,
        metavar="S",
        help="longest wait for all processes, in seconds (default: 300)",
    )


def plan(parser: argparse.ArgumentParser) -> None:
    """Flags of `plan`."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="slice of TPUs, as v5e:4x4 or v5p:2x2x4; local: the devices of this machine",
    )
    parser.add_argument(
        "--batch",
        type=positive_number,
        metavar="N",
        help="images a step, over all chips (default: optimizer.batch_size)",
    )
    parser.add_argument(
        "--effort",
        choices=("full", "low"),
        default="full",
        help="of the compiler: full, as in training (default), or low, in half the time or less",
    )
    parser.add_argument(
        "--search",
        type=natural_number,
        default=3,
        metavar="N",
        help="compiles to spend on the largest batch that fits (default: 3; 0: none)",
    )
    parser.add_argument(
        "--input_rate",
        metavar="RATE|FILE",
        help="images/s that one host's input delivers, or what benchmarks/input.py --output wrote",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the figures")


def replay(parser: argparse.ArgumentParser) -> None:
    """Flags of `replay`."""
    _workdir(parser)
    parser.add_argument(
        "--dump",
        required=True,
        type=Path,
        metavar="FILE",
        help="the bad step: WORKDIR/replay/STEP.npz",
    )


def export(parser: argparse.ArgumentParser) -> None:
    """Flags of `export`."""
    _workdir(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the parameters (default: WORKDIR/export, or WORKDIR/export_safetensors)",
    )
    parser.add_argument(
        "--format",
        choices=("orbax", "safetensors"),
        default="orbax",
        help="orbax: a folder of arrays, for JAX; safetensors: one file that numpy can read",
    )
