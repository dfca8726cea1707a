#!/usr/bin/env bash
# One node, a process for each of its GPUs. Run it again to go on.
#   bash docs/launch/eight_gpus.sh [--any.leaf VALUE ...]
#
# data.batch is the clips of all processes together: a recipe means the same here and on one GPU.
# SIGTERM has the processes save and leave; the launcher kills what is not done in 30 seconds, and
# ends with status 1 whatever its processes end with.
set -euo pipefail

# Change these, or set them in the environment.
PYTHON=${PYTHON:-.venv/bin/python}
CONFIG=${CONFIG:-configs/pretrain/ss_mast_mast.yaml}
SHARDS=${SHARDS:-shards/mine}       # several: SHARDS="shards/a shards/b=0.25"
RUN=${RUN:-runs/eight_gpus}
PROCESSES=${PROCESSES:-8}           # GPUs
PORT=${PORT:-29500}                 # another one for a second run on this machine

read -ra shards <<<"$SHARDS"
# The precision is the recipe's (training.precision), whatever the launcher is told.
exec "$PYTHON" -m accelerate.commands.launch \
    --multi_gpu --num_machines 1 --num_processes "$PROCESSES" --main_process_port "$PORT" \
    --mixed_precision no --dynamo_backend no \
    sslaudio/pretrain.py --config "$CONFIG" --data.shards "${shards[@]}" \
    --out "$RUN" --resume auto "$@"
