#!/usr/bin/env bash
# mccord_dash, 30720-warmup10 on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.mccord_dash --row 30720-warmup10 --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/mccord_dash}" "$@"
