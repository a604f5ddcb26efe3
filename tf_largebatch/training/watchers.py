"""What watches a run while it trains, made from its plan."""

import functools

import keras
import numpy as np

from tf_largebatch.data.dataset import DataSet as DataSet
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.optimizer_spec import LAMBSpec, LARSSpec
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.result import on_own_data
from tf_largebatch.review.progress import TrainingProgress
from tf_largebatch.review.tensorboard.dashboards import make_layout
from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars
from tf_largebatch.review.tensorboard.scalars import TensorBoardScalars
from tf_largebatch.training.blocks import BLOCK
from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.run import Run

SHOWN = 10  # training images that are read for TensorBoard


def make_watchers(run: Run, progress: Progress) -> list[keras.callbacks.Callback]:
    """Returns what watches the run: progress on the terminal, everything else in TensorBoard.

    The gradient noise scale only where an update has several micro-batches to compare.
    """
    plan, recipe, done = run.plan, run.plan.recipe, progress.update
    noise = all(phase.accumulation * phase.replicas > 1 for phase in plan.phases)
    noise = noise and plan.local is None  # workers apart have no gradient in common to compare with
    adapts = isinstance(recipe.optimizer, LARSSpec | LAMBSpec)
    # A miniature, or other images, is another experiment than the paper's.
    same = plan.scale == "full" and not on_own_data(plan.departures)
    expected = recipe.expected if same else None
    watchers = [
        TrainingProgress(run.label, updates=plan.updates, epochs=recipe.epochs, done=done),
        TensorBoardScalars(
            run.folder,
            every=BLOCK,
            plan_markdown=plan.markdown(),
            hparams=make_hparams(plan, run.seed, run.label.removesuffix(f", seed {run.seed}")),
            first_update=done,
            first_epoch=progress.records[-1].epoch if progress.records else 0,
            departures=plan.departures,
            inputs=lambda: first_images(run.dataset, run.seed),  # type: ignore[arg-type]
            layout=make_layout(adapts=adapts, noise=noise, grows=len(plan.phases) > 1),
            published=(recipe.epochs, expected.top1_error_pct) if expected else None,
        ),
    ]
    if noise:
        watchers.append(NoiseScaleScalars(run.folder / "train", every=BLOCK))
    return watchers


def make_hparams(plan: Plan, seed: int, row: str) -> dict[str, bool | float | str]:
    """Returns the columns of TensorBoard's table of runs: the same for every recipe."""
    recipe = plan.recipe
    return {
        "recipe": recipe.name,
        "row": row,
        "optimizer": type(recipe.optimizer).__name__.removesuffix("Spec"),
        "label_smoothing": recipe.loss.label_smoothing,
        "global_batch": recipe.global_batch,
        "micro_batch": plan.batch.micro_batch,
        "peak_rate": recipe.peak_rate,
        "scaling": recipe.scaling,
        "warmup_epochs": recipe.schedule.warmup_epochs,
        "weight_decay": recipe.optimizer.weight_decay,
        "bn_batch": recipe.model.bn_batch or plan.batch.micro_batch,
        "precision": plan.settings.precision,
        "wire": plan.settings.wire,
        "seed": seed,
        "modified": bool(plan.departures),
    }


@functools.lru_cache(maxsize=1)
def first_images(dataset: DataSet, seed: int) -> np.ndarray:
    """Reads a run's first training images once more: [n, height, width, channels].

    The rows of a command share their data set: a pipeline of its own for each would take seconds.
    """
    # A batch of their own: the first update's would be read whole. Even, for sources that mix.
    batch = BatchPlan(global_batch=SHOWN, train_examples=dataset.train_examples)
    return next(iter(dataset.train_batches(batch, seed=seed).take(1)))[0].numpy()
