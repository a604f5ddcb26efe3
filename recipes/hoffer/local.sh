#!/usr/bin/env bash
# hoffer, lb-lr-gbn on the GPUs of this machine: DATA=... ./local.sh
set -euo pipefail
exec python -m tf_largebatch.recipes.hoffer --row lb-lr-gbn --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --micro-batch auto --run-dir "${RUN_DIR:-runs/hoffer}" "$@"
