#!/usr/bin/env bash
# Hosts without a launcher: one process on each, told where process 0 is.
#   HOSTS="node0 node1" docs/launch/by_hand.sh --config=configs/paper.py \
#     --config.data.root=/shared/s-aff-wild2 --workdir=/shared/runs/paper
set -euo pipefail
: "${HOSTS:?names of the hosts, the first one the coordinator}"
read -r -a hosts <<<"$HOSTS"
words=$(printf '%q ' "$@")
for index in "${!hosts[@]}"; do
  # shellcheck disable=SC2029  # $words is quoted for the other side
  ssh "${hosts[$index]}" "cd mtl_face && .venv/bin/python run.py train $words \
    --coordinator=${hosts[0]}:8476 --num_processes=${#hosts[@]} --process_id=$index" &
done
status=0
for process in $(jobs -p); do wait "$process" || status=$?; done
exit "$status"
