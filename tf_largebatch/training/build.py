"""What a recipe's records mean in TensorFlow: data, network, schedule, update rule, loss."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tf_largebatch.data import digits, imagenet, small_images
from tf_largebatch.data.dataset import DataSet
from tf_largebatch.data.mixed import MixedData
from tf_largebatch.models.network import make_network
from tf_largebatch.optimizers import KFAC, LAMB, LARS, MomentumSGD, RMSpropSGD
from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import DataSpec, DigitsSpec, ImageNetSpec, SmallImagesSpec
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.model_spec import LossSpec
from tf_largebatch.records.optimizer_spec import (
    KFACSpec,
    LAMBSpec,
    LARSSpec,
    RMSpropSGDSpec,
    SGDSpec,
)
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.records.run_folder import MODEL
from tf_largebatch.records.schedule_spec import CosineSpec, PolynomialSpec, StepsSpec
from tf_largebatch.schedules import Cosine, Polynomial, Steps, Warmup
from tf_largebatch.schedules.batch import follow_phases
from tf_largebatch.training.local_step import LocalStep
from tf_largebatch.training.own_network import Network, make_own
from tf_largebatch.training.run import Run
from tf_largebatch.training.step import TrainingStep

RULES: dict[type, type[LargeBatchOptimizer]] = {
    SGDSpec: MomentumSGD,
    LARSSpec: LARS,
    LAMBSpec: LAMB,
    RMSpropSGDSpec: RMSpropSGD,
    KFACSpec: KFAC,
}
Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule
# Weights stay float32 under all of them.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def open_dataset(
    spec: DataSpec,
    folder: Path | str | DataSet | None,
    *,
    epochs: float,
    skip_unreadable: bool = False,
) -> DataSet:
    """Opens the recipe's data.

    The folder is needed for ImageNet; without one, small images are downloaded; a data set in its
    place is taken as it is, but for whole batches (RandAugment, mixing). The last of so many
    `epochs` may be without augmentation. `skip_unreadable` marks pictures of ImageNet that cannot
    be read instead of stopping.
    """
    plain_from = math.ceil(epochs - spec.plain_last_epochs) if spec.plain_last_epochs else None
    dataset: DataSet
    match spec:
        case _ if not isinstance(folder, str | Path | None):
            dataset = folder
        case DigitsSpec():
            dataset = digits.load(spec, plain_from_epoch=plain_from)
        case SmallImagesSpec():
            dataset = small_images.load(spec, folder, plain_from_epoch=plain_from)
        case ImageNetSpec():
            if folder is None:
                raise InputError("--data must name a folder of ImageNet TFRecord shards")
            dataset = imagenet.open_folder(
                folder, spec, plain_from_epoch=plain_from, skip_unreadable=skip_unreadable
            )
    magnitude = getattr(spec, "randaugment_magnitude", 0.0)
    if not (spec.mixes or magnitude):
        return dataset
    cutmix = getattr(spec, "cutmix_alpha", 0.0)
    return MixedData(
        dataset, randaugment_magnitude=magnitude, mixup_alpha=spec.mixup_alpha, cutmix_alpha=cutmix
    )


def make_model(
    recipe: Recipe,
    dataset: DataSet,
    seed: int,
    *,
    precision: str = "float32",
    bn_replicas: int = 1,
    network: Network | None = None,
) -> keras.Model:
    """Builds the recipe's network for the data set's images; its output are logits.

    `precision` is that of the forward and backward pass: "float32", "bfloat16" or "float16";
    `bn_replicas` share batch-norm statistics (see `Recipe.bn_replicas`). A `network` stands in the
    place of the recipe's.
    """
    with dtype_policy(precision):
        if network is not None:
            return make_own(network, dataset.facts, seed)
        return make_network(recipe.model, dataset.facts, seed=seed, bn_replicas=bn_replicas)


@contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Makes layers of this precision within it; Keras's policy is as before afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_schedule(recipe: Recipe, phases: tuple[BatchPlan, ...]) -> Schedule:
    """Builds the course of the rate, in updates; where the batch changes, it follows the images."""
    return follow_phases(phases, recipe.epochs, functools.partial(_course, recipe))


def _course(recipe: Recipe, plan: BatchPlan) -> Schedule:
    """The warmup and what follows it, in updates of one batch."""
    spec, peak = recipe.schedule, recipe.peak_rate
    match spec:
        case StepsSpec():
            rates = [peak * share for share in spec.shares]
            course = Steps.from_epochs(peak, spec.drop_epochs, rates=rates, plan=plan)
        case PolynomialSpec():
            course = Polynomial.from_epochs(
                peak,
                spec.end_rate,
                spec.power,
                0 if spec.whole_run else spec.warmup_epochs,
                end_epoch=recipe.epochs if spec.end_epoch is None else spec.end_epoch,
                plan=plan,
                extra_updates=spec.extra_updates,
            )
        case CosineSpec():
            course = Cosine.from_epochs(
                peak, spec.end_rate, spec.warmup_epochs, end_epoch=recipe.epochs, plan=plan
            )
    if not spec.warmup_epochs:
        return course
    return Warmup.from_epochs(
        course,
        spec.warmup_epochs,
        spec.warmup_start_rate,
        spec.warmup_shape,
        plan=plan,
        power=spec.warmup_power,
        # A batch below the reference batch may start above its peak: the plan says that it falls.
        peak=peak if peak >= spec.warmup_start_rate else None,
    )


def make_optimizer(recipe: Recipe, phases: tuple[BatchPlan, ...]) -> keras.optimizers.Optimizer:
    """Builds the update rule with its schedule.

    The fields of the record are the arguments of the rule; what it has in epochs, the rule has in
    updates of the first phase.
    """
    per_epoch = float(phases[0].updates_per_epoch)
    options = {}
    for name, value in vars(recipe.optimizer).items():
        if name.endswith("_epochs"):
            name, value = name.replace("_epochs", "_updates"), value * per_epoch
        options[name] = value
    rule = RULES[type(recipe.optimizer)]
    if rule.adapts:
        options["record_trust_ratio"] = True
    return rule(make_schedule(recipe, phases), **options)


def make_loss(spec: LossSpec) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns (labels, logits [n, classes]) -> losses [n], nats.

    Labels are int32 [n], with -1 for an image that could not be read, or float32 [n, classes] of
    mixed images, with zeros for that. Such an image's loss is 0.
    """
    tau = spec.label_smoothing

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        classes = logits.shape[-1]
        hard = not labels.dtype.is_floating
        targets = tf.one_hot(labels, classes) if hard else labels  # -1 gives zeros
        read = tf.reduce_sum(targets, axis=-1)
        targets = (1.0 - tau) * targets + (tau / classes) * read[:, tf.newaxis]
        if spec.kind == "softmax":
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        each = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return tf.where(read > 0, tf.reduce_sum(each, axis=-1), 0.0)

    return loss


def make_step(run: Run) -> TrainingStep:
    """Makes the network and its update rule, on the devices that train them."""
    recipe, batch, settings = run.plan.recipe, run.plan.batch, run.plan.settings
    keras.utils.set_random_seed(run.seed)
    bn_replicas = recipe.bn_replicas(batch)
    with run.team.strategy.scope():
        model = make_model(
            recipe,
            run.dataset,
            run.seed,
            precision=settings.precision,
            bn_replicas=bn_replicas,
            network=run.network,
        )
        # The step scales the loss; Keras would wrap the optimizer to divide by a scale of its own.
        model.compile(optimizer=make_optimizer(recipe, run.plan.phases), auto_scale_loss=False)
    options: dict[str, Any] = {
        "loss": make_loss(recipe.loss),
        "plan": batch,
        "strategy": run.team.strategy,
        "scale_loss": settings.precision == "float16",
        "seed": run.seed,
        "wire_dtype": None if settings.wire == "float32" else settings.wire,
        "pack_bytes": settings.pack_mb << 20,
    }
    step = TrainingStep(model, model.optimizer, **options)
    if schedule := run.plan.local:
        step.local = LocalStep(model, model.optimizer, schedule=schedule, **options)
    return step


def export(model: keras.Model, run: Run) -> None:
    """Saves the network, whole or not at all: raw pixels in, logits out, float32.

    Its batch norms are Keras's own, which infer the same, so that `keras.saving.load_model` needs
    nothing of this package; the optimizer's state is in the checkpoints.
    """
    recipe = run.plan.recipe
    plain = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, bn_batch=None))
    exported = make_model(plain, run.dataset, run.seed, network=run.network)
    exported.set_weights(model.get_weights())
    # Keras decides the format by the suffix, so the unfinished file needs the same one.
    part = run.folder / f"part-{MODEL}"
    part.unlink(missing_ok=True)  # what it links to is left alone
    exported.save(part)
    part.replace(run.folder / MODEL)
