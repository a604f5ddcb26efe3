#!/usr/bin/env bash
# you_alexnet, lars-8192 on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.you_alexnet --row lars-8192 --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/you_alexnet}" "$@"
