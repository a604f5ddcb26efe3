#!/usr/bin/env bash
# goyal_8k_constant_warmup on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.goyal_8k_constant_warmup --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/goyal_8k_constant_warmup}" "$@"
