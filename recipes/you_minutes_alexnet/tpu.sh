#!/usr/bin/env bash
# you_minutes_alexnet on a TPU: DATA=gs://... TPU=local ./tpu.sh
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python -m tf_largebatch.recipes.you_minutes_alexnet --tpu "${TPU:-local}" --precision bfloat16 \
  --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --run-dir "${RUN_DIR:-runs/you_minutes_alexnet}" "$@"
