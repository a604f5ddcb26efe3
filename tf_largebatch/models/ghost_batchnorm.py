"""Batch normalisation over a chosen number of examples, fewer or more than one device holds.

Goyal et al. 2017, arXiv:1706.02677 §2.3 and §5.1, keep 32 examples per worker at every global
batch because the number of examples that share statistics is part of the loss being minimised.
Hoffer, Hubara & Soudry 2017, arXiv:1705.08741 §4, get the same on one device by cutting the batch
in groups. Ying et al. 2018, arXiv:1811.06992, join the batches of several replicas where each holds
too few.
"""

import math

import keras
from keras import ops

from tf_largebatch.records.checks import check, check_number


@keras.saving.register_keras_serializable("tf_largebatch")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation whose training statistics come from a group of examples.

    By default the group is the batch of one replica in one forward pass. `group` makes it smaller
    and `replica_group` larger.

    Smaller: a batch of `B` examples is cut into `m = B / group` groups. With `mean_i` and `var_i`
    over the examples and positions of group `i`, each channel apart, training computes

        y           = gamma * (x - mean_i) / sqrt(var_i + epsilon) + beta      for x in group i
        moving_mean = momentum * moving_mean + (1 - momentum) * (mean_1 + ... + mean_m) / m
        moving_var  = momentum * moving_var  + (1 - momentum) * (var_1  + ... + var_m)  / m

    Larger: replicas `k g` to `k g + g - 1` of `g = replica_group` form group `k`. With `mean_r` and
    `var_r` of the batch of replica `r`, and averages over the replicas of the group,

        mean = avg(mean_r)
        var  = avg(var_r) + avg(mean_r^2) - mean^2

    are the moments of the union of their batches, exactly, since these are of one size. `y` and the
    moving statistics of each replica are as above with `m = 1`; the training step averages the
    latter over all replicas. The gradient is that of the union's loss. A forward pass costs one
    all-reduce of `[groups, 2, channels]`, a backward pass another. Where there is one replica only
    (no strategy, or outside of it) its batch is the group.

    Inference uses the moving statistics and is `keras.layers.BatchNormalization` itself, as is
    training where the group is the batch of one replica.

    With `momentum=0` the moving statistics are those of the last update alone, as Akiba et al.
    2017, arXiv:1711.04325, have them: under `TrainingStep`, averaged over all groups, micro-batches
    and replicas of that update.

    Choices the papers leave open, and ours:
      moving statistics  Moved once per call, whatever `m`, so that `momentum` means the same at
                         every batch. Hoffer's form moves them group by group, `m` times a batch.
      moving_var         The average of the group variances. The variance between group means is
                         not in it, as it is not when workers normalise apart and average their
                         statistics: splitting a batch over workers or groups gives one result.
      divisor            `var_i` divides by the number of values, in `y` and in `moving_var`, as
                         Keras does. Caffe2 and PyTorch put the unbiased variance in `moving_var`.
      precision          Statistics are computed in float32 or wider under every policy, and kept
                         in the variable dtype: float32 under the mixed policies.

    Shapes: input `[B, ..., channels]`, channels last, any rank from 2; output the same. `gamma`,
    `beta`, `moving_mean` and `moving_variance` are `[channels]`.

    Args:
        group: int >= 1, examples that share statistics, or None for the whole batch. In training
            the batch must be a multiple of it.
        replica_group: int >= 1, consecutive replicas that share statistics, or None for all. Their
            number must be a multiple of it, and their batches of one size. TensorFlow only, unless
            it is 1.
        momentum: float in [0, 1], the share of the old moving statistics that is kept.
        epsilon: float > 0, added to the variance.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, except that `axis` is
            the last one and that `synchronized` and `renorm` are off.

    Raises:
        ValueError: an argument outside its range, or both groups; in training, a batch that `group`
            does not divide (TensorFlow's own reshape error where the batch is only known at run
            time), or replicas that `replica_group` does not.

    Example:
        >>> import numpy as np
        >>> from tf_largebatch import GhostBatchNormalization
        >>> x = np.array([[0.0], [2.0], [10.0], [14.0]], "float32")
        >>> y = GhostBatchNormalization(group=2)(x, training=True)  # two groups, each to -1 and 1
        >>> np.asarray(y).round(2).ravel().tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(self, group=None, momentum=0.9, epsilon=1e-5, *, replica_group=1, **kwargs):
        _check_count("group", group)
        _check_count("replica_group", replica_group)
        if group is not None and replica_group != 1:
            raise ValueError(
                "`group` must be None when replicas share statistics. Received: "
                f"group={group}, replica_group={replica_group}. Statistics come from a part of a "
                "replica's batch, or from the whole batches of several replicas."
            )
        check(check_number("momentum", momentum) <= 1.0, "momentum", "in [0, 1]", momentum)
        check_number("epsilon", epsilon, low_open=True)
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        check(self.axis == -1, "axis", "-1", self.axis, "Put the channels last.")
        fix = (
            "Statistics are those of a group of examples; `replica_group=None` takes those of all "
            "replicas."
        )
        for name in ("synchronized", "renorm"):
            check(not getattr(self, name, False), name, "False", True, fix)  # `renorm`: Keras 3.15
        backend = keras.backend.backend()
        alone = replica_group == 1 or backend == "tensorflow"
        check(alone, "replica_group", f"1 on Keras's {backend} backend", replica_group)
        self.group, self.replica_group = group, replica_group

    def call(self, inputs, training=None, mask=None):
        """Normalises `inputs`, by groups in training."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        examples = inputs.shape[0]
        replicas = 1 if self.replica_group == 1 else _count_replicas()
        if replicas == 1 and self.group in (None, examples):
            return super().call(inputs, training=training, mask=mask)
        if mask is not None:
            raise ValueError("`mask` must be None when the batch is cut into groups or joined.")
        if self.group and examples is not None and examples % self.group:
            raise ValueError(
                f"`group` must divide the batch. Received: group={self.group}, batch={examples}. "
                "Choose a batch that is a multiple of the group, or drop the remainder."
            )
        return ops.cast(self._normalize(inputs, replicas), self.compute_dtype)

    def _normalize(self, inputs, replicas):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        shape = ops.shape(x)
        # One matrix a group: [groups, values, channels]. A batch that is only known at run
        # time and that `group` does not divide has no such shape, and fails here.
        values = self.group * math.prod(shape[1:-1]) if self.group else -1
        x = ops.reshape(x, (-1 if self.group else 1, values, shape[-1]))
        mean, variance = ops.moments(x, axes=[1], keepdims=True)  # [groups, 1, channels]
        if replicas > 1:
            mean, variance = self._join_replicas(mean, variance, replicas)
        self._move(self.moving_mean, ops.mean(mean, axis=(0, 1)))
        self._move(self.moving_variance, ops.mean(variance, axis=(0, 1)))
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * ops.cast(self.gamma, x.dtype)
        offset = -mean * factor
        if self.center:
            offset = offset + ops.cast(self.beta, x.dtype)
        return ops.reshape(x * factor + offset, shape)

    def _join_replicas(self, mean, variance, replicas):
        """Returns the moments of the union of this replica's batch and those of its group."""
        size = self.replica_group or replicas
        if replicas % size:
            raise ValueError(
                f"`replica_group` must divide the replicas. Received: replica_group={size}, "
                f"replicas={replicas}"
            )
        origin = ops.cast(self.moving_mean, mean.dtype)
        mean = mean - origin
        mean, square = _average_group(
            ops.concatenate([mean, variance + ops.square(mean)]), size, replicas
        )
        # Rounding may put a constant channel a little below 0, by more than epsilon.
        return origin + mean, ops.maximum(square - ops.square(mean), 0.0)

    def _move(self, moving, batch_value):
        old = ops.cast(moving, batch_value.dtype)
        moving.assign(self.momentum * old + (1.0 - self.momentum) * batch_value)

    def get_config(self):
        """Returns every argument of the constructor."""
        return {**super().get_config(), "group": self.group, "replica_group": self.replica_group}


def _check_count(name, value):
    if value is not None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        check(whole, name, "an integer or None", value)
        check(value >= 1, name, "at least 1 or None", value)


# TensorFlow only where replicas share statistics: the rest runs on every backend of Keras.


def _count_replicas():
    import tensorflow as tf

    context = tf.distribute.get_replica_context()  # None between replicas: building, plain calls
    return 1 if context is None else context.num_replicas_in_sync


def _average_group(x, size, replicas):
    """Averages `x`, [2, 1, channels], over the consecutive `size` replicas this one belongs to."""
    import tensorflow as tf

    from tf_largebatch.models.replica_sum import sum_over_replicas

    group = tf.distribute.get_replica_context().replica_id_in_sync_group // size
    # Every group adds to its own row.
    rows = sum_over_replicas(tf.scatter_nd([[group]], x[None], [replicas // size, *x.shape]))
    return tf.unstack(rows[group][:, None] / size)
