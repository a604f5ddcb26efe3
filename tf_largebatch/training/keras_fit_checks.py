"""What `keras_fit` refuses before training: it would fail, hang or be wrong on several replicas."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from tf_largebatch.records.batch_schedule import BatchSizeSchedule
from tf_largebatch.records.checks import check, check_count
from tf_largebatch.training.fit_resume import ExactResume

# Losses whose mean over the replicas' batches is the mean over the global batch.
EXACT_REDUCTIONS = ("sum_over_batch_size", "mean")
CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


def is_dataset(x) -> bool:
    """Whether `x` batches by itself, as a tf.data.Dataset does."""
    return isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset))


def check_backend() -> None:
    """Refuses the backends that have no `tf.distribute`."""
    backend = keras.backend.backend()
    fix = "Leave DistributedFit out there: docs/jax.md"
    check(backend == "tensorflow", "KERAS_BACKEND", "tensorflow for DistributedFit", backend, fix)


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


def check_split(replicas: int, micro_batch: int | None) -> int:
    """The number that must divide the global batch."""
    fix = "Leave it out, and each replica takes its part of the batch at once."
    return replicas * (
        1 if micro_batch is None else check_count("micro_batch", micro_batch, 1, fix)
    )


def check_compiled(model: keras.Model, micro_batch: int | None) -> None:
    """Refuses what fails, hangs or depends on the split on several replicas or in micro-batches."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        _check_replicas(model, micro_batch)
    for loss in keras.tree.flatten(model.loss):
        reduction = loss.reduction if isinstance(loss, keras.losses.Loss) else "mean"
        if reduction not in EXACT_REDUCTIONS:
            raise ValueError(
                f"`reduction` of a loss must be one of {list(EXACT_REDUCTIONS)} on several "
                "replicas or with micro-batches, or the split of the batch changes the loss. "
                f"Received: reduction={reduction!r} of {loss.name}. Scale the rate instead."
            )


def _check_replicas(model: keras.Model, micro_batch: int | None) -> None:
    if model.run_eagerly:
        raise ValueError(
            "`run_eagerly` must be False on several replicas: Keras cannot then score a batch of "
            "which a replica gets nothing. Received: run_eagerly=True. Debug on one device."
        )
    optimizer = inner_optimizer(model)
    for name, fix in (
        ("gradient_accumulation_steps", "Call fit with `micro_batch`."),
        ("ema_overwrite_frequency", "Weights are overwritten at the end of `fit` all the same."),
    ):
        if value := getattr(optimizer, name):
            raise ValueError(
                f"`{name}` must be None on several replicas, where Keras cannot run it. "
                f"Received: {name}={value}. {fix}"
            )
    for layer in model._flatten_layers():
        joined = getattr(layer, "replica_group", 1) != 1
        joined_by_keras = getattr(layer, "synchronized", False)
        if model.jit_compile and (joined or joined_by_keras):
            raise ValueError(
                "`jit_compile` must be False where batch normalisation joins replicas: XLA does "
                f"not compile their sum. Received: jit_compile=True with {layer.name}. Leave "
                "jit_compile out, or normalise each replica by itself."
            )
        if micro_batch is not None and joined_by_keras:
            raise ValueError(
                "`synchronized` of batch normalisation must be False with micro-batches, in whose "
                f"loop Keras cannot join replicas. Received: synchronized=True of {layer.name}. "
                "Use GhostBatchNormalization(replica_group=None)."
            )


def inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer that `compile` was given."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def check_own_step(model: keras.Model, micro_batch: int | None) -> None:
    """Refuses, for a `train_step` that replaces ours, what only ours can do on several replicas."""
    # An optimizer with a method of its own knows where it clips; those of this package clip after
    # the sum. They are not imported here: neither part should need the other.
    optimizer = model.optimizer
    theirs = type(optimizer)._clip_gradients is keras.optimizers.Optimizer._clip_gradients
    asked = {
        "micro_batch": micro_batch,
        "jit_compile": model.jit_compile or None,
        "optimizer": getattr(optimizer, "inner_optimizer", None) and "LossScaleOptimizer",
        **{name: getattr(optimizer, name) for name in CLIPPING if theirs},
    }
    for name, value in asked.items():
        if value is not None:
            raise ValueError(
                f"`train_step` of {type(model).__name__} must call super().train_step(data) where "
                f"`{name}` is set. Received: {name}={value}. Give another loss by overriding "
                "`compute_loss`, which needs no train_step."
            )


def check_batches(split: int, x, batch_size: int | None, validation_split: float) -> None:
    """Refuses batches that are not cut into `split` equal parts, or each in so many of its own."""
    where = "on several replicas or with micro-batches"
    if isinstance(x, tf.data.Dataset) and batch_size is not None:  # of single examples
        batch = batch_size
    elif is_dataset(x):
        sizes = {spec.shape[0] for spec in tf.nest.flatten(x.element_spec, expand_composites=True)}
        if None in sizes:
            raise ValueError(
                f"`x` must have full batches {where}, or examples of small ones count more. "
                f"Received: x.element_spec={x.element_spec}. Batch with drop_remainder=True."
            )
        batch = sizes.pop()
        # A distributed data set yields replica batches, which are cut into micro-batches only.
        if isinstance(x, tf.distribute.DistributedDataset):
            split //= x._strategy.num_replicas_in_sync
    elif all(hasattr(part, "shape") for part in keras.tree.flatten(x)):
        if batch_size is None:
            raise ValueError(
                f"`batch_size` must be given {where}. Received: batch_size=None. Give the global "
                "batch: that of all replicas together."
            )
        batch = batch_size
        examples = _count(x, validation_split)
        if examples % batch:
            raise ValueError(
                f"`batch_size` must divide the training examples {where}, or examples of the last "
                f"batch count more. Received: batch_size={batch}, examples={examples}. "
                f"Give {examples - examples % batch} examples, or a tf.data.Dataset batched with "
                "drop_remainder=True."
            )
    else:
        raise ValueError(
            f"`x` must be arrays or a tf.data.Dataset {where}. Received: "
            f"x of {type(x).__name__}. Make a tf.data.Dataset with full batches."
        )
    if batch % split:
        raise ValueError(
            "the batch must be a multiple of the number of replicas times `micro_batch`. Received: "
            f"batch={batch}, replicas x micro_batch={split}. Give {batch + -batch % split}, for "
            "instance."
        )


def check_growth(schedule: BatchSizeSchedule, x, options: Mapping[str, Any]) -> int:
    """The training examples, which every batch of the schedule must divide."""
    given = options.get("steps_per_epoch")
    check(given is None, "steps_per_epoch", f"left out with {schedule}", given)
    if isinstance(x, tf.data.Dataset):
        examples = int(x.cardinality())
        rule = f"of a known and finite number of examples with {schedule}"
        fix = "Tell it by tf.data.experimental.assert_cardinality, and leave repeat out."
        check(examples >= 0, "x.cardinality()", rule, examples, fix)
    else:
        known = all(hasattr(part, "shape") for part in keras.tree.flatten(x))
        rule = f"arrays or a tf.data.Dataset of single examples with {schedule}"
        check(known, "x", rule, type(x).__name__)
        examples = _count(x, options.get("validation_split", 0.0))
    for batch in schedule.sizes:
        fix = f"Give {examples - examples % batch} examples, or batches that divide them all."
        rule = f"divisors of the {examples} training examples"
        check(examples % batch == 0, "batch_size", rule, schedule, fix)
    return examples


def check_no_resume(schedule: BatchSizeSchedule, callbacks: Any) -> None:
    """Refuses a resume whose data have one batch."""
    names = [type(callback).__name__ for callback in keras.tree.flatten(callbacks or [])]
    ours = [c for c in keras.tree.flatten(callbacks or []) if isinstance(c, ExactResume)]
    rule = f"without ExactResume where the batch is {schedule}"
    fix = "A batch that grows resumes under tf_largebatch.run, with set=['growth=EPOCH:BATCH']."
    check(not ours, "callbacks", rule, names, fix)


def check_measured(schedule: BatchSizeSchedule, replicas: int, micro_batch: int | None) -> None:
    """Refuses to follow a noise scale where an update has one gradient."""
    first = schedule.batches[0]
    part = first // replicas if micro_batch is None else micro_batch
    rule = f"smaller than the first batch of {schedule}, so that its noise scale can be measured"
    fix = f"Give {first // (2 * replicas)}" if first >= 2 * replicas else "Begin with more examples"
    check(part < first, "micro_batch", rule, micro_batch, f"{fix}, or the phases in `batches`.")


def _count(x, validation_split: float) -> int:
    return math.floor(keras.tree.flatten(x)[0].shape[0] * (1.0 - validation_split))


def check_rank(data) -> None:
    """Refuses tensors from which Keras cannot tell what to build."""
    for tensor in keras.tree.flatten(data):
        if tensor is not None and tensor.shape.rank is None:
            raise ValueError(
                "`x` must yield tensors of known rank. Received: one of unknown rank, "
                f"{tensor.dtype.name}. Call `tensor.set_shape` in the last map of the data set."
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
