"""A global batch that changes between the epochs of `fit`."""

from collections.abc import Mapping, Sequence

from tf_largebatch.records.checks import check, check_count, check_sequence


class BatchSizeSchedule:
    """The global batch of each epoch, for the `batch_size` of a model with `DistributedFit`.

        model.fit(x, y, batch_size=BatchSizeSchedule({0: 256, 10: 512, 20: 2048}), epochs=30)

    >>> BatchSizeSchedule({0: 256, 10: 512, 20: 2048}).phases(epochs=15)
    [(0, 10, 256), (10, 15, 512)]

    Each batch divides the training examples, so that epochs have whole updates. The data are arrays
    or a tf.data.Dataset of single examples. Callbacks see one training; its updates are those of
    the engine's phases. The rate is the optimizer's affair: `LargeBatch(growth=...)` makes it.

    With a ladder, the batch follows the gradient noise scale (McCandlish et al. 2018,
    arXiv:1812.06162): measured between the micro-batches or replicas of every update since the
    batch last changed, and looked at after every epoch, once it averages 20 updates. The next epoch
    takes the largest rung that is not above it, and never a smaller batch than before. `fit` gives
    the batch of each epoch as `global_batch` in its history; the same phases, told in `batches`,
    train the same weights. Since no plan knows the phases, the rate is best constant, as in Smith
    et al. (2017), arXiv:1711.00489.

        BatchSizeSchedule({0: 256}, noise_ladder=(512, 1024, 2048))

    Args:
        batches: {first epoch: global batch}, with epoch 0; both whole, batches >= 1. With a ladder
            that of epoch 0 alone.
        noise_ladder: batches that may follow it, rising: no others are trained, or compiled.

    Raises:
        ValueError: no epoch 0, a value out of its range, a ladder that does not rise; from `fit`,
            a ladder where an update has one gradient, so that nothing can be measured.

    Example:
        >>> from tf_largebatch import BatchSizeSchedule
        >>> BatchSizeSchedule({0: 256, 10: 512}).phases(epochs=30)
        [(0, 10, 256), (10, 30, 512)]
    """

    def __init__(self, batches: Mapping[int, int], *, noise_ladder: Sequence[int] = ()):
        check(isinstance(batches, Mapping), "batches", "a dict {epoch: batch}", batches)
        self.batches = {
            check_count("batches", epoch, 0): check_count("batches", batch, 1)
            for epoch, batch in sorted(batches.items())
        }
        check(0 in self.batches, "batches", "told from epoch 0 on", batches, "Add 0: BATCH.")
        rungs = check_sequence("noise_ladder", noise_ladder)
        self.noise_ladder = tuple(check_count("noise_ladder", rung, 1) for rung in rungs)
        if self.noise_ladder:
            rule = "that of epoch 0 alone with a noise_ladder"
            check(len(self.batches) == 1, "batches", rule, batches, "The ladder names the others.")
            climb = [self.batches[0], *self.noise_ladder]
            rule = f"batches that rise from above {self.batches[0]}"
            check(climb == sorted(set(climb)), "noise_ladder", rule, noise_ladder)

    def __repr__(self) -> str:
        ladder = f", noise_ladder={self.noise_ladder}" if self.noise_ladder else ""
        return f"{type(self).__name__}({self.batches}{ladder})"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every batch that may be trained."""
        return (*self.batches.values(), *self.noise_ladder)

    def climb(self, batch: int, noise_scale: float) -> int:
        """The batch after one of `batch` examples, at a noise scale in examples."""
        return max([batch, *(rung for rung in self.noise_ladder if rung <= noise_scale)])

    def phases(self, epochs: int) -> list[tuple[int, int, int]]:
        """(first epoch, epoch after the last, batch) of each phase that begins before `epochs`."""
        starts = [start for start in self.batches if start < epochs]
        ends = [*starts[1:], epochs]
        return [(a, b, self.batches[a]) for a, b in zip(starts, ends, strict=True)]
