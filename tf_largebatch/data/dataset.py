"""What the training path asks of a data set."""

from typing import Protocol

import tensorflow as tf

from tf_largebatch.data import order
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.errors import InputError

# Orders and random numbers are computed for about this many examples at a time.
_GROUP_EXAMPLES = 512


class DataSet(Protocol):
    """Training and evaluation images with their labels.

    Attributes:
        name: as recipes call it, for example "digits".
        classes: labels are 0 to classes - 1.
        train_examples: examples per epoch.
        eval_examples: examples of one complete evaluation.
        eval_batch: examples that an evaluation delivers at a time.
        image_shape: (height, width, channels) of a delivered training image.
        eval_image_shape: of an evaluation image, mostly the same.
        pixel_mean: one number a channel, in the units delivered.
        pixel_std: the same. The model applies (image - mean) / std on the device, so that uint8
            travels where the images allow it.
    """

    name: str
    classes: int
    train_examples: int
    eval_examples: int
    eval_batch: int
    image_shape: tuple[int, int, int]
    eval_image_shape: tuple[int, int, int]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]

    @property
    def facts(self) -> ImageFacts:
        """What a network must know of the images, in training and in evaluation."""
        one_size = self.image_shape == self.eval_image_shape
        return ImageFacts(
            shape=self.image_shape if one_size else (None, None, self.image_shape[2]),
            classes=self.classes,
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
        )

    def describe(self) -> str:
        """Returns one line for the plan: sizes, format, augmentation."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal where the same examples come in the same order."""
        ...

    def train_batches(
        self,
        plan: BatchPlan,
        *,
        seed: int,
        first_update: int = 0,
        worker: int = 0,
        workers: int = 1,
    ) -> tf.data.Dataset:
        """Returns the endless training batches of one worker, in order.

        One element per replica of this worker in turn: all replicas of update `first_update`, then
        all of the next update. Worker w has the w-th contiguous share of every global batch and its
        replicas have consecutive shares of that.

        Args:
            plan: `plan.replicas` counts the replicas of all workers.
            seed: 0 <= seed < 2**32.
            first_update: number of the first update, >= 0.
            worker: this worker, 0 <= worker < workers.
            workers: must divide `plan.replicas`.

        Returns:
            (images [replica_batch, H, W, C], labels int32 [replica_batch]), static shapes. A label
            of -1 marks an image that could not be read, where the data set skips those.
        """
        if plan.train_examples != self.train_examples:
            raise ValueError(
                f"`plan` must be for the {self.train_examples} training examples of {self.name}. "
                f"Received: plan.train_examples={plan.train_examples}"
            )
        share = {"seed": seed, "first_update": first_update, "worker": worker, "workers": workers}
        group = max(1, _GROUP_EXAMPLES // plan.replica_batch)
        stream = order.train_stream(plan, **share, group=group)
        batches = self._batch_training(stream, plan.replica_batch, seed)
        return order.ordered(batches.prefetch(tf.data.AUTOTUNE))

    def eval_batches(self, batch: int, *, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
        """Returns the evaluation batches of one worker, every example once over all workers.

        The last batches are filled with rows of weight 0, so that shapes are static and all workers
        have the same number of batches; the weights of all workers add up to `eval_examples`.

        Returns:
            (images [batch, H, W, C], labels int32 [batch], weights float32 [batch]).
        """
        stream = order.eval_stream(self.eval_examples, batch, worker=worker, workers=workers)
        return order.ordered(self._batch_evaluation(stream, batch).prefetch(tf.data.AUTOTUNE))

    def _batch_training(
        self, stream: tf.data.Dataset, replica_batch: int, seed: int
    ) -> tf.data.Dataset:
        """The batches of `order.train_stream`, whose elements are of several."""
        ...

    def _batch_evaluation(self, stream: tf.data.Dataset, batch: int) -> tf.data.Dataset:
        """The batches of `order.eval_stream`."""
        ...

    def explain_failure(
        self, error: Exception, plan: BatchPlan, *, seed: int, update: int
    ) -> InputError | None:
        """Returns the one-line reason why `update` could not be read; None if not the data."""
        return None

    def unreadable(self, plan: BatchPlan, *, seed: int, update: int) -> list[str]:
        """Names the examples of `update` that cannot be read, one line each."""
        return []

    def explain_eval_failure(self, error: Exception) -> InputError | None:
        """Returns the one-line reason why evaluation failed; None if not the data."""
        return None
