#!/usr/bin/env bash
# smith_inception, m0.975 on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.smith_inception --row m0.975 --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/smith_inception}" "$@"
