#!/usr/bin/env bash
# he_256 on a TPU: DATA=gs://... TPU=local ./tpu.sh
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python -m tf_largebatch.recipes.he_256 --tpu "${TPU:-local}" --precision bfloat16 \
  --data "${DATA:?a folder of ImageNet TFRecord shards}" \
  --run-dir "${RUN_DIR:-runs/he_256}" "$@"
