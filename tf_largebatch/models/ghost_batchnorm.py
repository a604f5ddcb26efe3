"""Ghost batch normalisation: statistics of a few examples inside a large batch.

Goyal et al. 2017, arXiv:1706.02677 §2.3 and §5.1, keep 32 examples per worker at every global
batch because the number of examples that share statistics is part of the loss being minimised.
Hoffer, Hubara & Soudry 2017, arXiv:1705.08741 §4, get the same on one device by cutting the batch
in groups.
"""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_largebatch")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation whose training statistics come from `group` consecutive examples.

    A batch of `B` examples is cut into `m = B / group` groups. With `mean_i` and `var_i` over the
    examples and positions of group `i`, each channel apart, training computes

        y           = gamma * (x - mean_i) / sqrt(var_i + epsilon) + beta      for x in group i
        moving_mean = momentum * moving_mean + (1 - momentum) * (mean_1 + ... + mean_m) / m
        moving_var  = momentum * moving_var  + (1 - momentum) * (var_1  + ... + var_m)  / m

    Inference uses the moving statistics and is `keras.layers.BatchNormalization` itself, as is
    training with `group=None` or `group` equal to the batch.

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
        momentum: float in [0, 1], the share of the old moving statistics that is kept.
        epsilon: float > 0, added to the variance.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, except that `axis` is
            the last one and that `synchronized` and `renorm` are off.

    Raises:
        ValueError: an argument outside its range; in training, a batch that `group` does not
            divide (TensorFlow's own reshape error where the batch is only known at run time).
    """

    def __init__(self, group=None, momentum=0.9, epsilon=1e-5, **kwargs):
        if group is not None and (not isinstance(group, int) or isinstance(group, bool)):
            raise ValueError(f"`group` must be an integer or None. Received: group={group!r}")
        if group is not None and group < 1:
            raise ValueError(f"`group` must be at least 1 or None. Received: group={group}")
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"`momentum` must be in [0, 1]. Received: momentum={momentum}")
        if not epsilon > 0.0:
            raise ValueError(f"`epsilon` must be greater than 0. Received: epsilon={epsilon}")
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        if self.axis != -1:
            raise ValueError(
                f"`axis` must be -1. Received: axis={self.axis}. Put the channels last."
            )
        for name in ("synchronized", "renorm"):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` must be False. Received: {name}=True. Statistics are those of a "
                    "group of examples in one replica."
                )
        self.group = group

    def call(self, inputs, training=None, mask=None):
        """Normalises `inputs`, by groups in training."""
        examples = inputs.shape[0]
        if self.group is None or examples == self.group or not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        if mask is not None:
            raise ValueError("`mask` must be None when the batch is cut into groups.")
        if examples is not None and examples % self.group:
            raise ValueError(
                f"`group` must divide the batch. Received: group={self.group}, batch={examples}. "
                "Choose a batch that is a multiple of the group, or drop the remainder."
            )
        return ops.cast(self._normalize_by_group(inputs), self.compute_dtype)

    def _normalize_by_group(self, inputs):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        shape = ops.shape(x)
        # One matrix a group: [groups, values, channels]. A batch that is only known at run
        # time and that `group` does not divide has no such shape, and fails here.
        x = ops.reshape(x, (-1, self.group * math.prod(shape[1:-1]), shape[-1]))
        mean, variance = ops.moments(x, axes=[1], keepdims=True)  # [groups, 1, channels]
        self._move(self.moving_mean, ops.mean(mean, axis=(0, 1)))
        self._move(self.moving_variance, ops.mean(variance, axis=(0, 1)))
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * ops.cast(self.gamma, x.dtype)
        offset = -mean * factor
        if self.center:
            offset = offset + ops.cast(self.beta, x.dtype)
        return ops.reshape(x * factor + offset, shape)

    def _move(self, moving, batch_value):
        old = ops.cast(moving, batch_value.dtype)
        moving.assign(self.momentum * old + (1.0 - self.momentum) * batch_value)

    def get_config(self):
        """Returns every argument of the constructor."""
        return {**super().get_config(), "group": self.group}
