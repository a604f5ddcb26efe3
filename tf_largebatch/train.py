"""From a recipe to a result: plan, strategy, data, model, optimizer, fit, export.

The one place where the records of `recipe.py` become TensorFlow objects.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tf_largebatch import run_folder
from tf_largebatch.batching import BatchPlan
from tf_largebatch.callbacks.progress import TrainingProgress
from tf_largebatch.callbacks.tensorboard import TensorBoardScalars
from tf_largebatch.data import digits, imagenet
from tf_largebatch.distribution.checkpoint import Checkpoints, Progress
from tf_largebatch.distribution.evaluation import EvaluationStep, pad_to_multiple
from tf_largebatch.distribution.loop import BLOCK, fit
from tf_largebatch.distribution.preemption import StopNotice
from tf_largebatch.distribution.step import TrainingStep
from tf_largebatch.distribution.team import Team
from tf_largebatch.errors import InputError, NonFiniteError, StoppedError
from tf_largebatch.models.digits_resnet import make_digits_resnet
from tf_largebatch.models.resnet import make_resnet
from tf_largebatch.optimizers import LARS, MomentumSGD
from tf_largebatch.plan import Plan
from tf_largebatch.recipe import DigitsSpec, ImageNetSpec, LARSSpec, Recipe, SGDSpec
from tf_largebatch.result import SeedResult
from tf_largebatch.schedules import Steps, Warmup

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
CHECKPOINT_SECONDS = 600
# What reading damaged data raises; a record that is no Example shows as the last.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
EVAL_BATCH = {"imagenet2012": 64, "digits": 517}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run: what to train, where, and on which data.

    Attributes:
        label: shown while it runs.
        plan: the resolved recipe and batch.
        source: a data source (see `tf_largebatch.data`).
        seed: of weights, order and augmentation.
        folder: the run's own folder; all workers see the same one, and the chief writes it.
        team: the workers that train it.
        stop_epoch: end here instead of at the recipe's end, to be continued later.
    """

    label: str
    plan: Plan
    source: object
    seed: int
    folder: Path
    team: Team
    stop_epoch: float | None = None


def train(job: Job) -> SeedResult:
    """Trains one recipe with one seed and reports the error as the paper does.

    A run that was stopped continues from its newest checkpoint. One whose loss stops being finite
    ends there, with what it had reached.

    Raises:
        InputError: the data cannot be read, or no checkpoint restored.
        StoppedError: a signal came; a checkpoint was written.
    """
    started = time.perf_counter()
    recipe, batch, source = job.plan.recipe, job.plan.batch, job.source
    team, strategy = job.team, job.team.strategy
    if team.chief:
        run_folder.write_json(job.folder / run_folder.PLAN, job.plan.to_json())

    keras.utils.set_random_seed(job.seed)
    keras.config.set_dtype_policy(POLICIES[job.plan.precision])
    with strategy.scope():
        model = make_model(recipe, source, job.seed, bn_replicas=recipe.bn_replicas(batch))
        model.compile(optimizer=make_optimizer(recipe, batch))
    step = TrainingStep(
        model,
        model.optimizer,
        loss=cross_entropy,
        plan=batch,
        strategy=strategy,
        scale_loss=job.plan.precision == "float16",
    )
    checkpoints = Checkpoints(
        job.folder / "checkpoints", model, model.optimizer, others=step.variables
    )
    progress = checkpoints.restore(run_folder.read_metrics(job.folder / run_folder.METRICS))
    team.agree("the checkpoint that --run-dir shows", f"update {progress.update}")
    for damage in checkpoints.damaged if team.chief else ():
        print(f"{damage}: continues from update {progress.update}", file=sys.stderr)

    with StopNotice() as notice:
        saver = Saver(job, checkpoints, lambda: notice.agreed(team))
        diverged_at = None
        try:
            fit(
                step,
                batches=training_batches(
                    source, batch, strategy, seed=job.seed, first_update=progress.update
                ),
                evaluate=make_evaluation(model, source, batch, strategy),
                epochs=job.stop_epoch or recipe.epochs,
                progress=progress,
                callbacks=make_watchers(job, progress.update) if team.chief else [],
                after_epoch=saver.save,
                after_block=saver.after_block,
            )
        except NonFiniteError as error:
            diverged_at = error.update
            if team.chief:
                run_folder.write_text(job.folder / "diverged.txt", f"{error}\n")
        except READ_ERRORS as error:
            raise explain(error, job, int(model.optimizer.iterations.numpy())) or error from None
        if signal := notice.agreed(team):
            saver.save(progress)
            raise StoppedError(
                f"{signal.name}: stopped after update {progress.update:,}; the same command with "
                f"this --run-dir continues",
                signal,
            )
    if diverged_at is None and team.chief:
        export(model, job)
    return SeedResult(
        seed=job.seed,
        folder=".",
        epochs=tuple(progress.records),
        wall_seconds=time.perf_counter() - started,
        diverged_at=diverged_at,
    )


def explain(error: Exception, job: Job, update: int) -> InputError | None:
    """Returns what is wrong with the data that could not be read, or None if it is not the data.

    Args:
        error: what reading raised.
        job: the run.
        update: updates done. A block reads ahead of them, by its own length at most.
    """
    for ahead in range(update, update + BLOCK):
        known = job.source.explain_failure(error, job.plan.batch, seed=job.seed, update=ahead)
        if known is not None:
            return known
    return None


class Saver:
    """Writes a checkpoint after every epoch, every ten minutes, and when a signal came.

    Only the chief writes. State is the same on all workers, so none has anything to add.

    Args:
        job: the run.
        checkpoints: of the run.
        stop: whether a signal came, asked after every block of updates.
    """

    def __init__(self, job: Job, checkpoints: Checkpoints, stop: Callable[[], object]):
        self._job, self._checkpoints, self._stop = job, checkpoints, stop
        self._saved = time.monotonic()

    def save(self, progress: Progress) -> None:
        """Writes the epochs' records and then the checkpoint that goes with them."""
        if not self._job.team.chief:
            return
        run_folder.write_metrics(self._job.folder / run_folder.METRICS, progress.records)
        self._checkpoints.save(progress)
        self._saved = time.monotonic()

    def after_block(self, progress: Progress) -> bool:
        """Saves if it is time; returns whether to stop."""
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save(progress)
        return bool(self._stop())


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
    """Returns the loss of each example, nats."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def training_batches(source, batch: BatchPlan, strategy, *, seed: int, first_update: int):
    """Returns an endless iterator of (images, labels), one replica batch per replica."""

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return source.train_batches(
            batch,
            seed=seed,
            first_update=first_update,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    return iter(strategy.distribute_datasets_from_function(make))


def make_evaluation(model: keras.Model, source, batch: BatchPlan, strategy):
    """Returns a function that scores the model on the whole evaluation set."""
    step = EvaluationStep(model, strategy)
    size = min(EVAL_BATCH[source.name], source.eval_examples)
    batches = 0

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        nonlocal batches
        local = batch.replicas // context.num_input_pipelines
        dataset = source.eval_batches(
            size, worker=context.input_pipeline_id, workers=context.num_input_pipelines
        )
        per_worker = int(dataset.cardinality())
        batches = -(-per_worker // local)
        return pad_to_multiple(dataset, per_worker, local)

    dataset = strategy.distribute_datasets_from_function(make)

    def evaluate():
        try:
            return step(iter(dataset), batches=batches, examples=source.eval_examples)
        except READ_ERRORS as error:
            raise source.explain_eval_failure(error) or error from None

    return evaluate


def make_watchers(job: Job, done: int) -> list[keras.callbacks.Callback]:
    """Returns what watches the run: progress on the terminal, scalars in TensorBoard."""
    plan, recipe = job.plan, job.plan.recipe
    hparams = {
        "recipe": recipe.name,
        "optimizer": type(recipe.optimizer).__name__.removesuffix("Spec"),
        "global_batch": recipe.global_batch,
        "micro_batch": plan.batch.micro_batch,
        "peak_lr": recipe.peak_rate,
        "scaling": recipe.scaling,
        "warmup_epochs": recipe.schedule.warmup_epochs,
        "weight_decay": recipe.optimizer.weight_decay,
        "bn_batch": recipe.model.bn_batch or plan.batch.micro_batch,
        "precision": plan.precision,
        "seed": job.seed,
        "modified": bool(plan.departures),
    }
    return [
        TrainingProgress(job.label, updates=plan.updates, epochs=recipe.epochs, done=done),
        TensorBoardScalars(
            job.folder,
            every=BLOCK,
            plan_markdown=plan.markdown(),
            hparams=hparams,
            images_per_update=recipe.global_batch,
            first_update=done,
        ),
    ]


def export(model: keras.Model, job: Job) -> None:
    """Saves the network for use, whole or not at all: raw pixels in, logits out, float32.

    Its batch norms are Keras's own, which infer the same, so that `keras.saving.load_model` needs
    nothing of this package; the optimizer's state is in the checkpoints.
    """
    keras.config.set_dtype_policy("float32")
    recipe = job.plan.recipe
    plain = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, bn_batch=None))
    exported = make_model(plain, job.source, job.seed)
    exported.set_weights(model.get_weights())
    # Keras decides the format by the suffix, so the unfinished file needs the same one.
    part = job.folder / "part-model.keras"
    exported.save(part)
    part.replace(job.folder / "model.keras")
