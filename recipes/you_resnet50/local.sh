#!/usr/bin/env bash
# you_resnet50, 32k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.you_resnet50 --row 32k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/you_resnet50}" "$@"
