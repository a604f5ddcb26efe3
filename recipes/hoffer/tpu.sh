#!/usr/bin/env bash
# hoffer, lb-lr-gbn on a TPU: DATA=gs://... TPU=local ./tpu.sh
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python -m tf_largebatch.recipes.hoffer --row lb-lr-gbn --tpu "${TPU:-local}" --precision bfloat16 \
  --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --run-dir "${RUN_DIR:-runs/hoffer}" "$@"
