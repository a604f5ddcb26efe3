#!/usr/bin/env bash
# goyal_gamma, 8k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.goyal_gamma --row 8k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/goyal_gamma}" "$@"
