"""One training: what is trained, where, on which data, and by whom."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tf_largebatch.data.dataset import DataSet as DataSet
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.files import fingerprint
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.recipe import deciding
from tf_largebatch.training.own_network import Network, describe_structure
from tf_largebatch.training.workers.team import Team


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe with one seed."""

    label: str  # shown while it runs
    plan: Plan
    dataset: DataSet
    seed: int  # of weights, order and augmentation
    folder: Path  # its own; all workers see the same one, and the chief writes it
    team: Team
    network: Network | None = None  # in the place of the recipe's
    stop_epoch: float | None = None  # end here, to be continued later
    profile: tuple[int, int] = (0, 0)  # (first, end) updates to trace; none where they are equal

    @property
    def identity(self) -> dict[str, str]:
        """What makes this the same training as another: its checkpoints and its result carry it."""
        recipe, settings = self.plan.recipe, self.plan.settings
        own = self.network and describe_structure(self.network, self.dataset.facts)
        return {
            "recipe": fingerprint(deciding(dataclasses.asdict(recipe))),
            "seed": str(self.seed),
            "precision": settings.precision,
            "wire": settings.wire,
            "data": self.dataset.fingerprint,
            **({"network": fingerprint(own)} if own else {}),
        }

    def batches(self, plan: BatchPlan, update: int) -> Iterator:
        """Returns endless (images, labels) from `update` on, one replica batch per replica."""

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return self.dataset.train_batches(
                plan,
                seed=self.seed,
                first_update=update,
                worker=context.input_pipeline_id,
                workers=context.num_input_pipelines,
            )

        return iter(self.team.strategy.distribute_datasets_from_function(make))
