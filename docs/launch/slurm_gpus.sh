#!/usr/bin/env bash
# SLURM with GPUs: one process for each GPU. They find each other through SLURM.
#   sbatch --nodes=4 docs/launch/slurm_gpus.sh --config=configs/paper.py \
#     --config.data.shards=/shared/shards --workdir=/shared/runs/paper
#SBATCH --job-name=mtl_face
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail
srun .venv/bin/python run.py train --config.training.xla_preset=gpu "$@"
