#!/usr/bin/env bash
# strikes_back_a3 on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.strikes_back_a3 --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/strikes_back_a3}" "$@"
