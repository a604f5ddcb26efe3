"""Augmentations of whole batches on top of any data set: RandAugment, MixUp, CutMix."""

import tensorflow as tf

from tf_largebatch.data import mixing, order, randaugment
from tf_largebatch.data.dataset import DataSet
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import InputError


class MixedData:
    """A data set whose training images are changed or mixed after they were put into batches.

    All else is the other data set's: see `DataSet`. Training labels are float32
    [replica_batch, classes] where images are mixed. Each pair of neighbours in the stream of
    examples is mixed with each other, so that the result does not depend on the split.

    `randaugment_magnitude` is 0 to 10, 0 for none, and needs uint8 images; the alphas are those of
    `mixing.mix`.
    """

    def __init__(
        self,
        dataset: DataSet,
        *,
        randaugment_magnitude: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
    ):
        self._dataset = dataset
        self._magnitude = randaugment_magnitude
        self._alphas = {"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}

    def __getattr__(self, name: str):
        return getattr(self._dataset, name)

    def describe(self) -> str:
        """Returns the other data set's line and what is added."""
        parts = [f"RandAugment {self._magnitude:g}"] * bool(self._magnitude)
        parts += [f"{n.removesuffix('_alpha')} {a:g}" for n, a in self._alphas.items() if a]
        return f"{self._dataset.describe()}; {', '.join(parts)}"

    def train_batches(self, plan: BatchPlan, **share: int) -> tf.data.Dataset:
        """Returns the other data set's batches, changed; InputError for an odd replica batch."""
        mixed = any(self._alphas.values())
        if mixed and plan.replica_batch % 2:
            raise InputError(
                "the replica batch must be even where neighbours are mixed. Received: "
                f"{plan.replica_batch} ({plan})"
            )
        share = {"first_update": 0, "worker": 0, "workers": 1} | share
        batches = self._dataset.train_batches(plan, **share)
        places = order.train_stream(plan, **share, group=1)

        def change(batch, place):
            images, labels = batch
            keys = order.augmentation_keys(share["seed"], *place)
            if self._magnitude:
                images = randaugment.randaugment(images, keys, magnitude=self._magnitude)
            if mixed:
                images, labels = mixing.mix(
                    images, labels, keys, classes=self._dataset.classes, **self._alphas
                )
            return images, labels

        both = tf.data.Dataset.zip((batches, places))
        return order.ordered(both.map(change, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))
