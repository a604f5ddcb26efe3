#!/usr/bin/env bash
# nado_32k, nesterov on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.nado_32k --row nesterov --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/nado_32k}" "$@"
