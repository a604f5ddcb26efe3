#!/usr/bin/env bash
# goyal_sweep, 16k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.goyal_sweep --row 16k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/goyal_sweep}" "$@"
