#!/usr/bin/env bash
# mlperf, google-v0.7-65536-jax on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.mlperf --row google-v0.7-65536-jax --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/mlperf}" "$@"
