#!/usr/bin/env bash
# goyal_rates, 8k-sqrt on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.goyal_rates --row 8k-sqrt --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/goyal_rates}" "$@"
