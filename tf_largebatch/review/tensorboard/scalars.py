"""A run in TensorBoard: error curves, per-update scalars, the plan, and what tells runs apart."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from tf_largebatch.records.checks import check, check_count
from tf_largebatch.review.tensorboard.dashboards import make_layout
from tf_largebatch.review.tensorboard.layers import layer_points, named_tensors
from tf_largebatch.review.tensorboard.pictures import picture_grid
from tf_largebatch.review.tensorboard.summaries import drop_from, read_scalars, write

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
INPUTS = (
    "The first training images, augmented, before the network normalises them. What is not uint8 "
    "is drawn from its least (black) to its largest value (white)."
)
BEST = "epoch/top1_best"
METRICS = (
    ("epoch/error_pct", "final error, %"),
    (BEST, "best top-1"),
    ("epoch/top1", "final top-1"),
)
# Columns of the table of runs that it shows unasked; the rest are there to be ticked.
SHOWN_COLUMNS = ("row", "optimizer", "global_batch", "peak_lr", "warmup_epochs")


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes what a run of this package's training loop did, at the update or epoch it happened.

    Runs `train` and `validation` below `folder` share their tags, so that one chart shows both:

        epoch/loss  epoch/top1 (0..1)  epoch/error_pct         both; step: epochs done
        epoch/top5 (0..1)  epoch/top1_best (0..1)              validation; step: epochs done
        step/loss  optimizer/{learning_rate, grad_norm, weight_norm}
        throughput/{images_per_sec, step_ms, input_wait_pct,   train; step: updates done
                    bytes_sent}
        images_seen  global_batch                              of the window's last update
        optimizer/{trust_ratio, update_ratio}                  histograms over the layers, and
        trust_ratio/<path>  update_ratio/<path>                about ten layers; all in log10, of
                                                               the updates that were looked at

    Per-update values are kept as floats and written as their mean every `every` updates, at the
    last update of the window; what an epoch or the training leaves over is a shorter window, so
    that each value enters one point. Steps whose log has no such value count for nothing. The
    throughput of the first window is left out: compilation is in it.

    A third run, `published`, holds the paper's final error as a line on the chart of the error.

    `folder` itself gets, once and at step 0, the plan and the departures from the paper (text,
    `config` and `departures`), the first training images (`inputs`), the hparams with their
    metrics, and the layout of the custom-scalar page.

    A training that goes on at `first_update` appends to the folder and repeats none of the latter;
    the best top-1 is read back from it. Points after the checkpoint, which come a second time, are
    marked as void.

    Only the chief should have this callback.

    Args:
        folder: the run's folder, made where it is missing.
        every: updates per point, >= 1.
        plan_markdown: the resolved plan.
        hparams: name to bool, number or text: what a table of many runs is sorted by.
        first_update: updates already done when training starts, >= 0.
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
        folder: Path,
        *,
        every: int,
        plan_markdown: str,
        hparams: dict[str, float | str | int | bool],
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
        check(isinstance(hparams, dict), "hparams", "a dict", hparams)
        for name, value in hparams.items():
            if not isinstance(value, bool | int | float | str):
                raise ValueError(
                    "`hparams` must hold booleans, numbers and text. Received: "
                    f"hparams[{name!r}]={value!r}. Leave it out, or write it as text"
                )
        self._folder, self._every = Path(folder), every
        self._plan_markdown, self._hparams = plan_markdown, dict(hparams)
        self._first_update, self._first_epoch = first_update, first_epoch
        self._departures, self._inputs, self._published = tuple(departures), inputs, published
        self._layout = layout or make_layout(adapts=False, noise=False, grows=False)

    def on_train_begin(self, logs=None):
        """Opens the writers; at the start of a run, writes what is written once."""
        self._writers = {
            name: tf.summary.create_file_writer(str(self._folder / name))
            for name in ("", "train", "validation")
        }
        self._updates, self._best_top1, self._compiled = self._first_update, None, False
        self._clear()
        weights = self.model.trainable_variables if self.model else []
        self._named = named_tensors([(v.path, len(v.shape)) for v in weights])
        if self._first_update:
            [best] = read_scalars(self._folder / "validation", BEST)
            known = [epoch for epoch in best if epoch <= self._first_epoch]
            self._best_top1 = best[max(known)] if known else None
        else:
            self._write_once()
        # TensorBoard takes the first such mark in a folder for the start: a fresh run has one too.
        drop_from(self._writers["train"], self._first_update + 1)
        drop_from(self._writers["validation"], self._first_epoch + 1)

    def on_train_batch_end(self, batch, logs=None):
        """Keeps one update's values, and writes the window when it is full."""
        self._updates, self._newest = batch + 1, logs
        self._count += 1
        for name, _, _ in PER_UPDATE:
            if name in logs:
                self._values[name].append(float(logs[name]))
        if points := layer_points(logs, self._named):
            write(self._writers["train"], self._updates, points)
        if self._count == self._every:
            self._write_window()

    def on_epoch_end(self, epoch, logs=None):
        """Writes the epoch, after the updates it left over."""
        self._write_window()
        for run in ("train", "validation"):
            values = {name: logs[f"{run}_{name}"] for name in ("loss", "error_pct")}
            values["top1"] = top1 = 1 - values["error_pct"] / 100
            if run == "validation":
                if self._best_top1 is None or top1 > self._best_top1:
                    self._best_top1 = top1
                values["top1_best"] = self._best_top1
                values["top5"] = 1 - logs["validation_top5_error_pct"] / 100
            points = [scalar_pb(f"epoch/{name}", value) for name, value in values.items()]
            write(self._writers[run], epoch + 1, points)

    def on_train_end(self, logs=None):
        """Writes what is left, marks the run as finished and closes the files."""
        self._write_window()
        write(self._writers[""], 0, [hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)])
        for writer in self._writers.values():
            writer.close()

    def _write_once(self):
        departures = "\n".join(f"- {change}" for change in self._departures)
        points = [
            text_pb("config", self._plan_markdown),
            text_pb("departures", departures or "None: every number is the recipe's."),
            _experiment(self._hparams),
            hparams_summary.session_start_pb(self._hparams),
            custom_scalar.pb(self._layout),
        ]
        write(self._writers[""], 0, points)
        grid = picture_grid(self._inputs()) if self._inputs else None
        if grid is not None:
            with self._writers[""].as_default(step=0):
                tf.summary.image("inputs", grid[np.newaxis], description=INPUTS)
        if self._published is not None:
            last, error = self._published
            writer = tf.summary.create_file_writer(str(self._folder / "published"))
            for epoch in (1, round(last)):
                write(writer, epoch, [scalar_pb("epoch/error_pct", error)])
            writer.close()

    def _write_window(self):
        if not self._count:
            return
        points = [
            scalar_pb(tag, mean(self._values[name]))
            for name, tag, mean in PER_UPDATE
            if self._values[name] and (self._compiled or not tag.startswith("throughput/"))
        ]
        kept = [name for name in ("images_seen", "global_batch") if name in self._newest]
        points += [scalar_pb(name, self._newest[name]) for name in kept]
        write(self._writers["train"], self._updates, points)
        self._compiled = True
        self._clear()

    def _clear(self):
        self._count, self._newest = 0, {}
        self._values = {name: [] for name, _, _ in PER_UPDATE}


def _experiment(hparams: dict):
    """The columns of the hparams page."""
    types = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    # TensorBoard takes the columns of all runs from one of them. A domain of this run's values
    # would hide the runs that have others.
    columns = [
        api_pb2.HParamInfo(
            name=name,
            type=types.get(type(value), api_pb2.DATA_TYPE_FLOAT64),
            differs=name in SHOWN_COLUMNS,
        )
        for name, value in hparams.items()
    ]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(group="validation", tag=tag), display_name=title)
        for tag, title in METRICS
    ]
    return hparams_summary.experiment_pb(columns, metrics)
