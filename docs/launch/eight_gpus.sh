#!/usr/bin/env bash
# One machine with 8 GPUs: one process drives them all.
#   docs/launch/eight_gpus.sh --config=configs/paper.py --config.data.root=/data/s-aff-wild2 \
#     --workdir=runs/paper
set -euo pipefail
exec .venv/bin/python run.py train --config.training.xla_preset=gpu "$@"
