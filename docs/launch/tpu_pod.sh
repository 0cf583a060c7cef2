#!/usr/bin/env bash
# A TPU pod slice: the same line on every host of it. The hosts find each other.
#   NAME=my-slice ZONE=europe-west4-b docs/launch/tpu_pod.sh --config=configs/paper.py \
#     --config.data.shards=/mnt/shared/shards --workdir=/mnt/shared/runs/paper
set -euo pipefail
: "${NAME:?name of the slice}" "${ZONE:?zone of the slice}"
words=$(printf '%q ' "$@")
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all \
  --command="cd mtl_face && .venv/bin/python run.py train --config.training.xla_preset=tpu $words"
