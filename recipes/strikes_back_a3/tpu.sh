#!/usr/bin/env bash
# strikes_back_a3 on a TPU: DATA=gs://... TPU=local ./tpu.sh
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python -m tf_largebatch.recipes.strikes_back_a3 --tpu "${TPU:-local}" --precision bfloat16 \
  --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --run-dir "${RUN_DIR:-runs/strikes_back_a3}" "$@"
