#!/usr/bin/env bash
# you_alexnet_bn, lars-32k on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.you_alexnet_bn --row lars-32k --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/you_alexnet_bn}" "$@"
