"""Two workers of Ray Train, which sets TF_CONFIG for each of them.

    pip install "ray[train]"
    python examples/ray_train.py

Ray's own example with Keras 3 fails there (ray-project/ray#47464); `DistributedFit` trains.
"""

import json

import ray
from ray.train import ScalingConfig
from ray.train.tensorflow import TensorflowTrainer


def train_worker() -> None:
    """What each worker runs."""
    from train import train  # the file beside this one

    ray.train.report({"loss": train()})


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    trainer = TensorflowTrainer(train_worker, scaling_config=ScalingConfig(num_workers=2))
    print(json.dumps(trainer.fit().metrics))
