#!/usr/bin/env bash
# One process on one GPU, or on the CPU where there is none. Run it again to go on.
#   bash docs/launch/one_gpu.sh [--any.leaf VALUE ...]
set -euo pipefail

# Change these, or set them in the environment.
PYTHON=${PYTHON:-.venv/bin/python}
CONFIG=${CONFIG:-configs/pretrain/ss_mast_ast.yaml}
SHARDS=${SHARDS:-shards/mine}       # several: SHARDS="shards/a shards/b=0.25"
RUN=${RUN:-runs/one_gpu}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}

read -ra shards <<<"$SHARDS"
# `exec`: a signal to this script is one to the training, and the exit status is its own.
exec "$PYTHON" -m sslaudio pretrain --config "$CONFIG" --data.shards "${shards[@]}" \
    --out "$RUN" --resume auto "$@"
