"""What `keras_fit` refuses before training: it would fail, hang or be wrong on several replicas."""

import math

import keras
import tensorflow as tf
from tensorflow.python.eager import context

# Losses whose mean over the replicas' batches is the mean over the global batch.
EXACT_REDUCTIONS = ("sum_over_batch_size", "mean")


def is_dataset(x) -> bool:
    """Whether `x` batches by itself, as a tf.data.Dataset does."""
    return isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset))


def check_steps(model: keras.Model, name: str, steps: int | None) -> None:
    """Refuses steps after which Keras would not stop."""
    size = model.steps_per_execution
    if steps is not None and steps % size:
        raise ValueError(
            f"`{name}` must be a multiple of `steps_per_execution`, or Keras runs "
            f"{size * math.ceil(steps / size)} steps. Received: {name}={steps}, "
            f"steps_per_execution={size}. Change one of them."
        )


def check_scope(model: keras.Model) -> None:
    """Refuses variables that the strategy does not know: each replica would keep its own."""
    strategy = model.distribute_strategy
    outside = []
    here = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    if here is not None and model._distribute_strategy is not here:
        outside.append("model")
    if strategy.num_replicas_in_sync > 1:
        owners = {
            "model": model.variables,
            "optimizer": model.optimizer.variables if model.optimizer else [],
            **{f"metric {metric.name}": metric.variables for metric in model.metrics},
        }
        inside = strategy.extended.variable_created_in_scope
        outside += [k for k, held in owners.items() if not all(inside(v.value) for v in held)]
    if outside:
        raise ValueError(
            "model, optimizer and metrics must be made, and `compile` called, inside "
            f"`strategy.scope()`. Received from outside it: {', '.join(outside)}. "
            "Move them under `with strategy.scope():`."
        )


def check_compiled(model: keras.Model) -> None:
    """Refuses what fails, hangs or is wrong on several replicas without a word from Keras."""
    optimizer = model.optimizer
    if model.jit_compile:
        raise ValueError(
            "`jit_compile` must be False on several replicas: XLA does not compile the sum over "
            "them. Received: jit_compile=True. Compile layers apart, with "
            "`tf.function(jit_compile=True)`."
        )
    if model.run_eagerly:
        raise ValueError(
            "`run_eagerly` must be False on several replicas: Keras cannot then score a batch of "
            "which a replica gets nothing. Received: run_eagerly=True. Debug on one device."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "`optimizer` must not be a LossScaleOptimizer on several replicas: it skips an update "
            "on the replica that overflows and not on the others, which gives NaN or waits for "
            f"ever. Received: optimizer={optimizer.name}. Use the policy mixed_bfloat16."
        )
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            "`gradient_accumulation_steps` must be None on several replicas, where Keras cannot "
            "run it. Received: gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}. Train with "
            "tf_largebatch.training.step, which has micro-batches."
        )
    _check_clipping(optimizer)
    for loss in keras.tree.flatten(model.loss):
        reduction = loss.reduction if isinstance(loss, keras.losses.Loss) else "mean"
        if reduction not in EXACT_REDUCTIONS:
            raise ValueError(
                f"`reduction` of a loss must be one of {list(EXACT_REDUCTIONS)} on several "
                "replicas, or the split of the batch changes the loss. Received: "
                f"reduction={reduction!r} of {loss.name}. Scale the learning rate instead."
            )


def _check_clipping(optimizer: keras.optimizers.Optimizer) -> None:
    # An optimizer with a method of its own knows where it clips; those of this package clip after
    # the sum. They are not imported here: neither part should need the other.
    theirs = type(optimizer)._clip_gradients is keras.optimizers.Optimizer._clip_gradients
    for name in ("clipnorm", "global_clipnorm", "clipvalue") if theirs else ():
        if (limit := getattr(optimizer, name)) is not None:
            raise ValueError(
                f"`{name}` must be None on several replicas, where {type(optimizer).__name__} "
                f"clips each replica's part before the sum. Received: {name}={limit}. Use an "
                "optimizer of tf_largebatch, which clips the whole gradient."
            )


def check_batches(strategy, x, batch_size: int | None, validation_split: float) -> None:
    """Refuses batches whose split over the replicas is not equal."""
    replicas = strategy.num_replicas_in_sync
    if is_dataset(x):
        sizes = {spec.shape[0] for spec in tf.nest.flatten(x.element_spec, expand_composites=True)}
        if None in sizes:
            raise ValueError(
                "`x` must have full batches on several replicas, or examples of small ones count "
                f"more. Received: x.element_spec={x.element_spec}. Batch with drop_remainder=True."
            )
        # A distributed data set yields replica batches: only its maker knows the global one.
        batch = replicas if isinstance(x, tf.distribute.DistributedDataset) else sizes.pop()
    elif all(hasattr(part, "shape") for part in keras.tree.flatten(x)):
        if batch_size is None:
            raise ValueError(
                "`batch_size` must be given on several replicas. Received: batch_size=None. Give "
                "the global batch: that of all replicas together."
            )
        batch = batch_size
        examples = math.floor(keras.tree.flatten(x)[0].shape[0] * (1.0 - validation_split))
        if examples % batch:
            raise ValueError(
                "`batch_size` must divide the training examples on several replicas, or examples "
                f"of the last batch count more. Received: batch_size={batch}, examples={examples}. "
                f"Give {examples - examples % batch} examples, or a tf.data.Dataset batched with "
                "drop_remainder=True."
            )
    else:
        raise ValueError(
            "`x` must be arrays or a tf.data.Dataset on several replicas. Received: "
            f"x of {type(x).__name__}. Make a tf.data.Dataset with full batches."
        )
    if batch % replicas:
        raise ValueError(
            "the global batch must be a multiple of the number of replicas. Received: "
            f"batch={batch}, replicas={replicas}. Give {batch + -batch % replicas}, for instance."
        )


def check_seed(strategy) -> None:
    """Refuses unequal seeds: each worker shuffles for itself, and takes its part of the result."""
    if strategy.num_replicas_in_sync == len(strategy.extended.worker_devices):
        return  # one worker
    seed = context.global_seed()
    own = tf.constant([-1 if seed is None else seed], tf.int64)
    values = strategy.experimental_distribute_values_from_function(lambda _: own)
    seeds = sorted(set(strategy.gather(values, axis=0).numpy().tolist()))
    if len(seeds) > 1 or seeds[0] < 0:
        raise ValueError(
            "the seed must be the same on every worker when arrays are shuffled, or examples are "
            f"drawn twice and left out. Received: seeds {seeds}, -1 for none. Call "
            "keras.utils.set_random_seed with one number, or fit with shuffle=False."
        )
