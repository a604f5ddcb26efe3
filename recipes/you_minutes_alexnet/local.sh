#!/usr/bin/env bash
# you_minutes_alexnet on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.you_minutes_alexnet --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/you_minutes_alexnet}" "$@"
