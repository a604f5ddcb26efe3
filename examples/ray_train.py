"""Two workers of Ray Train, which sets TF_CONFIG for each of them.

    pip install "ray[train]"
    python examples/ray_train.py

Ray's own example with Keras 3 fails there (ray-project/ray#47464); `DistributedFit` trains.
"""

import json
import tempfile
from pathlib import Path

import ray
from ray.train import Checkpoint, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer


def train_worker() -> None:
    """What each worker runs; Ray keeps the numbers that are reported with a checkpoint."""
    from train import train  # the file beside this one

    losses = train()
    with tempfile.TemporaryDirectory() as folder:
        chief = ray.train.get_context().get_world_rank() == 0
        Path(folder, "loss.json").write_text(json.dumps(losses))
        checkpoint = Checkpoint.from_directory(folder) if chief else None
        ray.train.report({"loss": losses}, checkpoint=checkpoint)


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    trainer = TensorflowTrainer(train_worker, scaling_config=ScalingConfig(num_workers=2))
    print(json.dumps({"loss": trainer.fit().metrics["loss"]}))
