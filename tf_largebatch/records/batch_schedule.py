"""A global batch that changes between the epochs of `fit`."""

from collections.abc import Mapping

from tf_largebatch.records.checks import check, check_count


class BatchSizeSchedule:
    """The global batch of each epoch, for the `batch_size` of a model with `DistributedFit`.

        model.fit(x, y, batch_size=BatchSizeSchedule({0: 256, 10: 512, 20: 2048}), epochs=30)

    >>> BatchSizeSchedule({0: 256, 10: 512, 20: 2048}).phases(epochs=15)
    [(0, 10, 256), (10, 15, 512)]

    Each batch divides the training examples, so that epochs have whole updates. The data are arrays
    or a tf.data.Dataset of single examples. Callbacks see one training; its updates are those of
    the engine's phases. The rate is the optimizer's affair: `LargeBatch(growth=...)` makes it.

    Args:
        batches: {first epoch: global batch}, with epoch 0; both whole, batches >= 1.

    Raises:
        ValueError: no epoch 0, or a value out of its range.

    Example:
        >>> from tf_largebatch import BatchSizeSchedule
        >>> BatchSizeSchedule({0: 256, 10: 512}).phases(epochs=30)
        [(0, 10, 256), (10, 30, 512)]
    """

    def __init__(self, batches: Mapping[int, int]):
        check(isinstance(batches, Mapping), "batches", "a dict {epoch: batch}", batches)
        self.batches = {
            check_count("batches", epoch, 0): check_count("batches", batch, 1)
            for epoch, batch in sorted(batches.items())
        }
        check(0 in self.batches, "batches", "told from epoch 0 on", batches, "Add 0: BATCH.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.batches})"

    def phases(self, epochs: int) -> list[tuple[int, int, int]]:
        """(first epoch, epoch after the last, batch) of each phase that begins before `epochs`."""
        starts = [start for start in self.batches if start < epochs]
        ends = [*starts[1:], epochs]
        return [(a, b, self.batches[a]) for a, b in zip(starts, ends, strict=True)]
