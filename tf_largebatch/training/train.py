"""From a plan to a result: strategy, data, model, optimizer, fit, checkpoints, export."""

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records import run_folder
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import InputError, NonFiniteError, StoppedError, StorageError
from tf_largebatch.records.files import write_json, write_text
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.result import SeedResult
from tf_largebatch.training.build import make_loss, make_model, make_optimizer
from tf_largebatch.training.checkpoint import Checkpoints, Progress
from tf_largebatch.training.evaluation import EvaluationStep, pad_to_multiple
from tf_largebatch.training.loop import BLOCK, fit
from tf_largebatch.training.profile import Profile
from tf_largebatch.training.statistics import StatisticsStep
from tf_largebatch.training.step import COLUMNS, TrainingStep
from tf_largebatch.training.watchers import make_watchers
from tf_largebatch.training.workers.preemption import StopNotice
from tf_largebatch.training.workers.team import Team

# What reading damaged data raises; a record that is no Example shows as the last.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
LOOKS = 100  # at the layers in a run; TensorBoard shows 50 histograms
NAMED = 5  # unreadable images that are named, of an epoch
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
        profile: (first, end) updates to trace, or None.
    """

    label: str
    plan: Plan
    source: object
    seed: int
    folder: Path
    team: Team
    stop_epoch: float | None = None
    profile: tuple[int, int] | None = None


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
    settings = job.plan.settings
    team, strategy = job.team, job.team.strategy
    if team.chief:
        write_json(job.folder / run_folder.PLAN, job.plan.to_json())

    keras.utils.set_random_seed(job.seed)
    with strategy.scope():
        model = make_model(
            recipe,
            source,
            job.seed,
            precision=settings.precision,
            bn_replicas=recipe.bn_replicas(batch),
        )
        # The step scales the loss; Keras would wrap the optimizer to divide by a scale of its own.
        model.compile(optimizer=make_optimizer(recipe, job.plan.phases), auto_scale_loss=False)
    step = TrainingStep(
        model,
        model.optimizer,
        loss=make_loss(recipe.loss),
        plan=batch,
        strategy=strategy,
        scale_loss=settings.precision == "float16",
        seed=job.seed,
        wire_dtype=None if settings.wire == "float32" else settings.wire,
        pack_bytes=settings.pack_mb << 20,
    )
    checkpoints = Checkpoints(
        job.folder / "checkpoints",
        model,
        model.optimizer,
        others=step.variables,
        keep=settings.keep,
    )
    progress = checkpoints.restore(run_folder.read_metrics(job.folder / run_folder.METRICS))
    team.agree("the checkpoint that --run-dir shows", f"update {progress.update}")
    for damage in checkpoints.damaged if team.chief else ():
        print(f"{damage}: continues from update {progress.update}", file=sys.stderr)

    with StopNotice() as notice:
        saver = Saver(job, checkpoints, lambda: notice.agreed(team))
        unread = UnreadLimit(job)
        diverged_at = None
        try:
            fit(
                step,
                batches=lambda plan, update: training_batches(
                    source, plan, strategy, seed=job.seed, first_update=update
                ),
                later=job.plan.phases[1:],
                evaluate=make_evaluation(job, model, progress),
                epochs=job.stop_epoch or recipe.epochs,
                progress=progress,
                callbacks=make_watchers(job, progress) if team.chief else [],
                after_epoch=lambda progress: (unread.report(progress), saver.save(progress)),
                after_block=lambda progress: unread.check(progress) or saver.after_block(progress),
                pause_every=settings.checkpoint_updates,
                look_every=max(BLOCK, job.plan.updates // LOOKS),
                profile=Profile(*job.profile or (), folder=job.folder if team.chief else None),
            )
        except NonFiniteError as error:
            diverged_at = error.update
            if team.chief:
                write_text(job.folder / "diverged.txt", f"{error}\n")
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
        plan = job.plan.phase_at(ahead)
        known = job.source.explain_failure(error, plan, seed=job.seed, update=ahead)
        if known is not None:
            return known
    return None


class Saver:
    """Writes a checkpoint after every epoch, as often as the settings say, and when a signal came.

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
        """Writes the epochs' records and then the checkpoint that goes with them.

        Raises:
            StorageError: one of them cannot be written.
        """
        if not self._job.team.chief:
            return
        metrics = self._job.folder / run_folder.METRICS
        try:
            run_folder.write_metrics(metrics, progress.records)
        except OSError as error:
            raise StorageError(f"{metrics} could not be written ({error.strerror})") from None
        self._checkpoints.save(progress)
        self._saved = time.monotonic()

    def after_block(self, progress: Progress) -> bool:
        """Saves if it is time; returns whether to stop."""
        settings = self._job.plan.settings
        by_count = settings.checkpoint_updates and not progress.update % settings.checkpoint_updates
        if by_count or time.monotonic() - self._saved > 60.0 * settings.checkpoint_minutes:
            self.save(progress)
        return bool(self._stop())


class UnreadLimit:
    """Counts the training images that could not be read, names them, and stops above the limit.

    Every worker sees the counts of all, so that all stop at the same update.

    Args:
        job: the run.
    """

    def __init__(self, job: Job):
        self._job = job
        self._checked = 0  # updates
        self._named: list[str] = []

    def check(self, progress: Progress) -> None:
        """Asked after every block.

        Raises:
            InputError: more in this epoch than the settings allow.
        """
        unread = progress.rows[:, COLUMNS.index("unread")]
        first = progress.update - len(unread)
        for i in np.flatnonzero(unread):
            if self._job.team.chief and first + i >= self._checked:
                self._name(first + int(i))
        self._checked = progress.update
        limit, count = self._job.plan.settings.skip_unreadable, int(unread.sum())
        if count > limit:
            raise InputError(
                f"{count} training images of this epoch could not be read, more than "
                f"--skip-unreadable {limit} allows: {'; '.join(self._named)}"
            )

    def report(self, progress: Progress) -> None:
        """Prints at the end of an epoch what was skipped in it."""
        record, named, self._named = progress.records[-1], self._named, []
        if not self._job.team.chief or not (record.unread or record.validation_unread):
            return
        print(
            f"epoch {record.epoch}: {record.unread} training images could not be read and were "
            f"skipped, {record.validation_unread} validation images count as wrong. "
            + "; ".join(named),
            file=sys.stderr,
        )

    def _name(self, update: int) -> None:
        """Notes the first few by name, which reads the update's images once more."""
        if len(self._named) < NAMED:
            plan = self._job.plan.phase_at(update)
            found = self._job.source.unreadable(plan, seed=self._job.seed, update=update)
            self._named = (self._named + found)[:NAMED]


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


def make_evaluation(job: Job, model: keras.Model, progress: Progress):
    """Returns a function that scores the model on the whole evaluation set.

    Where the recipe says so, it first takes the batch-norm statistics afresh, from the training
    images that were used last.
    """
    source, batch, strategy = job.source, job.plan.batch, job.team.strategy
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
    images = job.plan.recipe.model.bn_recompute_images
    # The first phase's batch in every phase: what matters is how many images a group has.
    recompute = StatisticsStep(model, plan=batch, strategy=strategy) if images else None

    def evaluate():
        if recompute:
            number = -(-images // batch.global_batch)
            first = max(progress.update - number, 0)
            recompute(
                training_batches(source, batch, strategy, seed=job.seed, first_update=first),
                number=number,
            )
        try:
            return step(iter(dataset), batches=batches, examples=source.eval_examples)
        except READ_ERRORS as error:
            raise source.explain_eval_failure(error) or error from None

    return evaluate


def export(model: keras.Model, job: Job) -> None:
    """Saves the network for use, whole or not at all: raw pixels in, logits out, float32.

    Its batch norms are Keras's own, which infer the same, so that `keras.saving.load_model` needs
    nothing of this package; the optimizer's state is in the checkpoints.
    """
    recipe = job.plan.recipe
    plain = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, bn_batch=None))
    exported = make_model(plain, job.source, job.seed)
    exported.set_weights(model.get_weights())
    # Keras decides the format by the suffix, so the unfinished file needs the same one.
    part = job.folder / "part-model.keras"
    exported.save(part)
    part.replace(job.folder / "model.keras")
