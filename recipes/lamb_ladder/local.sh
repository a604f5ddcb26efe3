#!/usr/bin/env bash
# lamb_ladder, 32k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.lamb_ladder --row 32k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/lamb_ladder}" "$@"
