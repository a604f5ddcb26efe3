"""The largest micro-batch that fits a device, found by trying (`--micro-batch auto`)."""

import bisect
import contextlib
import gc
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.training.build import make_loss, make_model, make_optimizer
from tf_largebatch.training.own_network import Network
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.team import Team


def find(
    recipe: Recipe, source, team: Team, *, precision: str, network: Network | None = None
) -> int | None:
    """Returns the largest micro-batch that fits the GPU of every worker; all must ask.

    None without a GPU: main memory is not what limits there, and the default of
    `Recipe.batch_plan` holds. InputError: not even the smallest fits.
    """
    if not tf.config.list_logical_devices("GPU"):
        return None

    sizes = candidates(recipe, team.replicas, source.train_examples)
    fit = largest(sizes, lambda size: _fits(recipe, source, size, precision, network))
    found = team.least(fit or 0)
    if not found:
        raise InputError(
            f"--micro-batch auto must find a size that fits the GPU. Received: {sizes[0]} does not "
            "fit. Use more or larger devices, or --precision bfloat16"
        )
    return found


def candidates(recipe: Recipe, replicas: int, train_examples: int) -> list[int]:
    """Returns the micro-batches that the recipe allows on so many replicas, rising."""
    allowed, replica_batch = [], recipe.global_batch // replicas
    for size in (n for n in range(1, replica_batch + 1) if replica_batch % n == 0):
        with contextlib.suppress(ValueError):  # it would change the batch-norm batch
            recipe.batch_plan(replicas=replicas, micro_batch=size, train_examples=train_examples)
            allowed.append(size)
    return allowed


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Returns the largest of rising sizes that fits, by bisection; None if none does."""
    # `bisect` looks for the first size of which "does not fit" is true.
    count = bisect.bisect_left(sizes, True, key=lambda size: not fits(size))
    return sizes[count - 1] if count else None


def _fits(
    recipe: Recipe, source, micro_batch: int, precision: str, network: Network | None
) -> bool:
    """Runs two updates of two micro-steps on one device, on images of zeros.

    Two micro-steps, so that the sum of the gradients is there beside the gradients of one.
    """
    plan = BatchPlan(
        global_batch=2 * micro_batch, train_examples=source.train_examples, micro_batch=micro_batch
    )
    images = tf.zeros([2 * micro_batch, *source.image_shape], tf.uint8)
    labels = tf.zeros([2 * micro_batch], tf.int32)
    try:
        step = TrainingStep(
            make_model(recipe, source, 0, precision=precision, network=network),
            make_optimizer(recipe, (plan,)),
            loss=make_loss(recipe.loss),
            plan=plan,
            strategy=tf.distribute.get_strategy(),
            scale_loss=precision == "float16",
        )
        batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
        step.run(iter(batches), tf.constant(2)).numpy()
        return True
    except tf.errors.ResourceExhaustedError:
        return False
    finally:
        step = None  # type: ignore[assignment]
        keras.backend.clear_session()
        gc.collect()
