"""What a recipe's records mean in TensorFlow: data, network, schedule, update rule, loss."""

from pathlib import Path

import keras
import tensorflow as tf

from tf_largebatch.batching import BatchPlan
from tf_largebatch.data import digits, imagenet
from tf_largebatch.errors import InputError
from tf_largebatch.models.digits_resnet import make_digits_resnet
from tf_largebatch.models.resnet import make_resnet
from tf_largebatch.optimizers import LARS, MomentumSGD
from tf_largebatch.recipe import DigitsSpec, ImageNetSpec, LARSSpec, Recipe, SGDSpec
from tf_largebatch.schedules import Steps, Warmup


def make_source(spec: ImageNetSpec | DigitsSpec, folder: Path | None):
    """Opens the recipe's data.

    Raises:
        InputError: no folder where one is needed, or a folder that cannot be used.
    """
    match spec:
        case DigitsSpec():
            return digits.load(shift=spec.shift, noise=spec.noise)
        case ImageNetSpec():
            if folder is None:
                raise InputError("--data must name a folder of ImageNet TFRecord shards")
            return imagenet.open_folder(
                folder,
                image_size=spec.image_size,
                area=(spec.min_area, spec.max_area),
                aspect=(spec.min_aspect, spec.max_aspect),
                eval_short_side=spec.eval_short_side,
            )


def make_model(recipe: Recipe, source, seed: int, *, bn_replicas: int = 1) -> keras.Model:
    """Builds the recipe's network for the source's images; its output are logits.

    Args:
        recipe: gives the network.
        source: gives the images' shape and scale.
        seed: of the weights.
        bn_replicas: replicas that share batch-norm statistics (see `Recipe.bn_replicas`).
    """
    spec = recipe.model
    common = {
        "image_shape": source.image_shape,
        "classes": source.classes,
        "pixel_mean": source.pixel_mean,
        "pixel_std": source.pixel_std,
        "last_gamma": spec.last_gamma,
        "bn_decay": spec.bn_decay,
        "bn_epsilon": spec.bn_epsilon,
        "bn_batch": spec.bn_batch if bn_replicas == 1 else None,
        "bn_replica_group": bn_replicas,
        "head_std": spec.head_std,
        "seed": seed,
    }
    match spec.architecture:
        case "resnet50":
            return make_resnet(50, **common)
        case "resnet101":
            return make_resnet(101, **common)
        case "digits_resnet":
            return make_digits_resnet(**common)
    raise ValueError(f"`architecture` must be known. Received: {spec.architecture!r}")


def make_schedule(
    recipe: Recipe, batch: BatchPlan
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Builds the course of the rate, in updates of this batch."""
    spec, peak = recipe.schedule, recipe.peak_rate
    steps = Steps.from_epochs(peak, spec.drop_epochs, factor=spec.drop_factor, plan=batch)
    if not spec.warmup_epochs:
        return steps
    return Warmup.from_epochs(
        steps,
        spec.warmup_epochs,
        spec.warmup_start_rate,
        spec.warmup_shape,
        plan=batch,
        peak=peak,
    )


def make_optimizer(recipe: Recipe, batch: BatchPlan) -> keras.optimizers.Optimizer:
    """Builds the update rule with its schedule."""
    spec, schedule = recipe.optimizer, make_schedule(recipe, batch)
    match spec:
        case SGDSpec():
            return MomentumSGD(
                schedule,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                weight_decay=spec.weight_decay,
                exclude_rank_below=spec.exempt_rank_below,
            )
        case LARSSpec():
            return LARS(
                schedule,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                weight_decay=spec.weight_decay,
                trust_coefficient=spec.trust_coefficient,
                epsilon=spec.epsilon,
                momentum_placement=spec.momentum_placement,
                decay_in_norm=spec.decay_in_norm,
                exclude_rank_below=spec.exempt_rank_below,
            )


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the loss of each example, nats; 0 for a label of -1."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return tf.where(labels < 0, 0.0, losses)
