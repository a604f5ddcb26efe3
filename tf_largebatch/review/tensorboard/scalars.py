"""A run in TensorBoard: error curves, per-update scalars, the plan, and what tells runs apart."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from tf_largebatch.records.checks import check, check_count
from tf_largebatch.review.tensorboard.dashboards import layout_point, make_layout
from tf_largebatch.review.tensorboard.fit_logs import FitLogs
from tf_largebatch.review.tensorboard.layers import layer_points, named_tensors
from tf_largebatch.review.tensorboard.pictures import picture_grid, picture_pb
from tf_largebatch.review.tensorboard.runs_table import (
    BEST,
    columns,
    hparams_of,
    session_end,
    session_start,
)
from tf_largebatch.review.tensorboard.summaries import EventFile, read_scalars

# Name in the logs of an update, tag, and mean over a window. For updates of one size the harmonic
# mean of rates is images over time.
PER_UPDATE = (
    ("loss", "step/loss", statistics.fmean),
    ("learning_rate", "optimizer/learning_rate", statistics.fmean),
    ("grad_norm", "optimizer/grad_norm", statistics.fmean),
    ("weight_norm", "optimizer/weight_norm", statistics.fmean),
    ("images_per_sec", "throughput/images_per_sec", statistics.harmonic_mean),
    ("step_ms", "throughput/step_ms", statistics.fmean),
    ("input_wait_pct", "throughput/input_wait_pct", statistics.fmean),
    ("bytes_sent", "throughput/bytes_sent", statistics.fmean),
)
# The same against images seen, an axis that runs of every batch share.
BY_IMAGES = {
    "step/loss": "images_seen/loss",
    "optimizer/learning_rate": "images_seen/learning_rate",
}
INPUTS = (
    "The first training images, augmented, before the network normalises them. What is not uint8 "
    "is drawn from its least (black) to its largest value (white)."
)
# Keras's names of what is top-1 here.
ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy")


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes what a training did, at the update or epoch it happened: `fit`'s, or a recipe's.

        model.fit(x, y, batch_size=1024, callbacks=[TensorBoardScalars("runs/mine", plan=plan)])

    Runs `train` and `validation` below `folder` share their tags, so that one chart shows both:

        epoch/loss  epoch/top1 (0..1)  epoch/error_pct         both; step: epochs done
        epoch/top5 (0..1)  epoch/top1_best (0..1)              validation; step: epochs done
        step/loss  optimizer/{learning_rate, grad_norm, weight_norm}
        throughput/{images_per_sec, step_ms, input_wait_pct,   train; step: updates done
                    bytes_sent}
        images_seen  global_batch                              of the window's last update
        images_seen/{loss, learning_rate}                        train; step: images seen
        optimizer/{trust_ratio, update_ratio}                  histograms over the layers, and
        trust_ratio/<path>  update_ratio/<path>                about ten layers; all in log10, of
                                                               the updates that were looked at

    Per-update values are kept as floats and written as their mean every `every` updates, at the
    last update of the window; what an epoch or the training leaves over is a shorter window, so
    that each value enters one point. Steps whose log has no such value count for nothing. The
    throughput of the first window is left out: compilation is in it.

    A third run, `published`, holds the paper's final error as a line on the chart of the error.

    Once and at step 0, `train` gets the plan and the departures from the paper (text, `config` and
    `departures`), the first training images (`inputs`) and the layout of the custom-scalar page;
    `validation` the hparams with their metrics. `folder` itself has no events: TensorBoard counts
    each folder that has as a run, and above 40 of them most of its pages open empty.

    Under `fit`, on any strategy and on Keras's JAX backend, every worker may have this callback,
    and the chief writes. Each value is of one update as above, but: `input_wait_pct` is of the
    updates that were looked at, and on several replicas or with micro-batches of all; `grad_norm`
    and the size of the batch come from `DistributedFit` with several replicas or micro-batches, the
    size else from `plan` or `global_batch`; trust ratios from an optimizer with
    `record_trust_ratio=True`; with `steps_per_execution` above 1 no update is looked at. An epoch's
    metrics are `epoch/<name>`; accuracy is also `epoch/top1` and `epoch/error_pct`.

    A training that goes on (`first_update`; under `fit` the optimizer's own count, also where
    `ExactResume` restored it) appends to the folder and repeats none of what is written once; the
    best top-1 is read back from it. Points after the checkpoint, which come a second time, are
    marked as void.

    Args:
        folder: the run's folder, made where it is missing.
        every: updates per point, >= 1.
        plan: of the run, for `fit`: a `LargeBatch`. Its lines are the text, its batch the batch.
        plan_markdown: the text in the place of a plan.
        hparams: name to bool, number or text: what a table of many runs is sorted by. None takes
            the optimizer's options.
        global_batch: examples per update of a `fit` without a plan, >= 1.
        look_every: updates of a `fit` between two looks at the layers, >= 1; None is `every`.
        first_update: updates already done when a recipe's training starts, >= 0.
        first_epoch: epochs already recorded then, >= 0.
        departures: from the published set-up, in words.
        inputs: () -> training images [n, height, width, channels] as the network takes them.
        layout: of the custom-scalar page.
        published: (epoch, top-1 error in percent) of the paper's result, or None where this run
            cannot be held against it.

    Raises:
        ValueError: a number out of range, or an hparam of another type.

    Example:
        >>> import tempfile
        >>> from tf_largebatch import TensorBoardScalars
        >>> scalars = TensorBoardScalars(
        ...     tempfile.mkdtemp(), every=20, plan_markdown="batch 256", hparams={"batch": 256}
        ... )  # among the callbacks of this package's loop
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int = 20,
        plan: Any = None,
        plan_markdown: str = "",
        hparams: dict[str, float | str | int | bool] | None = None,
        global_batch: int | None = None,
        look_every: int | None = None,
        first_update: int = 0,
        first_epoch: int = 0,
        departures: Sequence[str] = (),
        inputs: Callable[[], np.ndarray] | None = None,
        layout: layout_pb2.Layout | None = None,
        published: tuple[float, float] | None = None,
    ):
        super().__init__()
        check_count("every", every, 1)
        check_count("first_update", first_update, 0)
        check_count("first_epoch", first_epoch, 0)
        for name, count in (("global_batch", global_batch), ("look_every", look_every)):
            if count is not None:
                check_count(name, count, 1)
        check(hparams is None or isinstance(hparams, dict), "hparams", "a dict", hparams)
        for name, value in (hparams or {}).items():
            if not isinstance(value, bool | int | float | str):
                raise ValueError(
                    "`hparams` must hold booleans, numbers and text. Received: "
                    f"hparams[{name!r}]={value!r}. Leave it out, or write it as text"
                )
        if plan is not None:
            rule, fix = "a LargeBatch", "Any other text goes into plan_markdown"
            check(hasattr(plan, "lines") and hasattr(plan, "batch"), "plan", rule, plan, fix)
            plan_markdown = plan_markdown or _as_table(plan.lines())
            global_batch = global_batch or plan.batch.global_batch
        self._folder, self._every = Path(folder), every
        self._plan_markdown, self._hparams = plan_markdown, hparams
        self._global_batch, self._look_every = global_batch, look_every or every
        self._first_update, self._first_epoch = first_update, first_epoch
        self._departures, self._inputs, self._published = tuple(departures), inputs, published
        self._layout = layout

    def on_train_begin(self, logs=None):
        """Opens the files; at the start of a run, writes what is written once."""
        self._fit: FitLogs | None = None
        self._files: dict[str, EventFile] = {}
        # Keras's `fit` says how many epochs there are. Where it starts is known with the first.
        self._under_fit = bool(self.params)
        if not self._under_fit:
            self._open(self._hparams or {})

    def on_epoch_begin(self, epoch, logs=None):
        """Under `fit`, opens the files with the first."""
        if not self._under_fit:
            return
        if self._fit is None:
            size, looks = self._global_batch, self._look_every
            self._fit = FitLogs(self.model, global_batch=size, look_every=looks)
            self._first_update, self._first_epoch = self._fit.update, epoch
            if self._fit.writes:
                chosen = hparams_of(self.model, size) if self._hparams is None else self._hparams
                self._open(chosen)
        self._fit.begin_epoch()

    def on_train_batch_begin(self, batch, logs=None):
        """Under `fit`, looks at the weights where their change is measured."""
        if self._fit is not None and self._files:
            self._fit.before_batch()

    def on_train_batch_end(self, batch, logs=None):
        """Keeps one update's values, and writes the window when it is full."""
        made = 1
        if not self._files:
            return
        if self._fit is not None:
            logs = self._fit.after_batch(batch, logs or {})
            batch, made = self._fit.update - 1, self._fit.update - self._updates
        if logs is None:
            return
        self._updates, self._newest = batch + 1, logs
        self._count += made
        for name, _, _ in PER_UPDATE:
            if name in logs:
                self._values[name].append(float(logs[name]))
        if points := layer_points(logs, self._named):
            self._files["train"].write(self._updates, points)
        if self._count >= self._every:
            self._write_window()

    def on_epoch_end(self, epoch, logs=None):
        """Writes the epoch, after the updates it left over."""
        if not self._files:
            return
        self._write_window()
        logs = logs or {}
        told = _of_recipe(logs) if self._fit is None else _of_fit(logs)
        for run, values in told.items():
            if run == "validation" and (top1 := values.get("top1")) is not None:
                if self._best_top1 is None or top1 > self._best_top1:
                    self._best_top1 = top1
                values["top1_best"] = self._best_top1
            points = [scalar_pb(f"epoch/{name}", value) for name, value in values.items()]
            self._files[run].write(epoch + 1, points)

    def on_train_end(self, logs=None):
        """Writes what is left, and marks the run as finished."""
        if not self._files:
            return
        self._write_window()
        self._files["validation"].write(0, [session_end()])

    def _open(self, hparams: dict[str, float | str | int | bool]) -> None:
        self._files = {n: EventFile.of(self._folder / n) for n in ("train", "validation")}
        self._updates, self._best_top1, self._compiled = self._first_update, None, False
        self._clear()
        weights = self.model.trainable_variables if self.model else []
        self._named = named_tensors([(v.path, len(v.shape)) for v in weights])
        images: dict[str, dict[int, float]] = {}
        if self._first_update:
            [best] = read_scalars(self._folder / "validation", BEST)
            known = [epoch for epoch in best if epoch <= self._first_epoch]
            self._best_top1 = best[max(known)] if known else None
            images = self._read_by_images()
        else:
            self._write_once(hparams)
        # TensorBoard takes the first such mark in a folder for the start: a fresh run has one too.
        self._files["train"].drop_from(self._first_update + 1)
        self._files["validation"].drop_from(self._first_epoch + 1)
        # The mark's step is an update, and takes every number of images for a later one.
        for tag, points in images.items():
            for step, value in points.items():
                self._files["train"].write(step, [scalar_pb(tag, value)])

    def _read_by_images(self) -> dict[str, dict[int, float]]:
        """What an earlier process wrote against images seen, up to where this one goes on."""
        seen, *found = read_scalars(self._folder / "train", "images_seen", *BY_IMAGES.values())
        last = max((n for update, n in seen.items() if update <= self._first_update), default=0)
        curves = zip(BY_IMAGES.values(), found, strict=True)
        return {tag: {s: v for s, v in curve.items() if s <= last} for tag, curve in curves}

    def _write_once(self, hparams):
        departures = "\n".join(f"- {change}" for change in self._departures)
        adapts = getattr(getattr(self.model, "optimizer", None), "record_trust_ratio", False)
        layout = self._layout or make_layout(adapts=adapts, noise=False, grows=False)
        points = [
            text_pb("config", self._plan_markdown),
            text_pb("departures", departures or "None: every number is the recipe's."),
            layout_point(layout),
        ]
        grid = picture_grid(self._inputs()) if self._inputs else None
        if grid is not None:
            points.append(picture_pb("inputs", grid, INPUTS))
        self._files["train"].write(0, points)
        self._files["validation"].write(0, [columns(hparams), session_start(hparams)])
        if self._published is not None:
            last, error = self._published
            file = EventFile(self._folder / "published")
            for epoch in (1, round(last)):
                file.write(epoch, [scalar_pb("epoch/error_pct", error)])

    def _write_window(self):
        if not self._count:
            return
        means = {
            tag: mean(self._values[name])
            for name, tag, mean in PER_UPDATE
            if self._values[name] and (self._compiled or not tag.startswith("throughput/"))
        }
        kept = [name for name in ("images_seen", "global_batch") if name in self._newest]
        points = means | {name: self._newest[name] for name in kept}
        train = self._files["train"]
        train.write(self._updates, [scalar_pb(tag, value) for tag, value in points.items()])
        if "images_seen" in points:
            shared = [scalar_pb(by, means[tag]) for tag, by in BY_IMAGES.items() if tag in means]
            train.write(int(points["images_seen"]), shared)
        self._compiled = True
        self._clear()

    def _clear(self):
        self._count, self._newest = 0, {}
        self._values = {name: [] for name, _, _ in PER_UPDATE}


def _as_table(lines: Sequence[tuple[str, str]]) -> str:
    """A plan's lines as TensorBoard's text shows a table."""
    rows = (f"| {label.strip()} | {text} |" for label, text in lines)
    return "\n".join(["| | |", "|---|---|", *rows])


def _of_recipe(logs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The points of an epoch by run, from a recipe's record of it."""
    told = {}
    for run in ("train", "validation"):
        values = {name: logs[f"{run}_{name}"] for name in ("loss", "error_pct")}
        told[run] = {**values, "top1": 1 - values["error_pct"] / 100}
    told["validation"]["top5"] = 1 - logs["validation_top5_error_pct"] / 100
    return told


def _of_fit(logs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The same from `fit`'s logs, whose names are the metrics'."""
    told: dict[str, dict[str, float]] = {}
    for name, value in logs.items():
        run, metric = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
        if not np.ndim(value):
            told.setdefault(run, {})[metric] = float(value)
    for values in told.values():
        top1 = next((values[name] for name in ACCURACIES if name in values), None)
        if top1 is not None:
            values |= {"top1": top1, "error_pct": 100.0 * (1.0 - top1)}
    return told
