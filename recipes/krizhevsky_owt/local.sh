#!/usr/bin/env bash
# krizhevsky_owt, 1024 on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.krizhevsky_owt --row 1024 --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/krizhevsky_owt}" "$@"
