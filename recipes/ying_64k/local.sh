#!/usr/bin/env bash
# ying_64k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.ying_64k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/ying_64k}" "$@"
