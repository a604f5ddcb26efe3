#!/usr/bin/env bash
# mccord_dash, 30720-warmup10 on a TPU: DATA=gs://... TPU=local ./tpu.sh
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python -m tf_largebatch.recipes.mccord_dash --row 30720-warmup10 --tpu "${TPU:-local}" --precision bfloat16 \
  --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --run-dir "${RUN_DIR:-runs/mccord_dash}" "$@"
