"""A run in TensorBoard: error curves, per-update scalars, the plan, and what tells runs apart."""

import statistics
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

# Name in the logs of an update, tag, and mean over a window. For updates of one size the harmonic
# mean of rates is images over time.
PER_UPDATE = (
    ("loss", "step/loss", statistics.fmean),
    ("learning_rate", "optimizer/learning_rate", statistics.fmean),
    ("grad_norm", "optimizer/grad_norm", statistics.fmean),
    ("weight_norm", "optimizer/weight_norm", statistics.fmean),
    ("images_per_sec", "throughput/images_per_sec", statistics.harmonic_mean),
    ("step_ms", "throughput/step_ms", statistics.fmean),
)
CATEGORY = "Goyal"
CHARTS = (
    ("error, % against epoch", r"^epoch/error_pct$"),
    ("learning rate against update", r"^optimizer/learning_rate$"),
)
METRICS = (("epoch/top1_best", "best top-1"), ("epoch/top1", "final top-1"))


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes what a run of this package's training loop did, at the update or epoch it happened.

    Runs `train` and `validation` below `folder` share their tags, so that one chart shows both:

        epoch/loss  epoch/top1 (0..1)  epoch/error_pct         both; step: epochs done
        epoch/top5 (0..1)  epoch/top1_best (0..1)              validation; step: epochs done
        step/loss  optimizer/{learning_rate, grad_norm, weight_norm}
        throughput/{images_per_sec, step_ms}                   train; step: updates done
        images_seen  global_batch                              of the window's last update

    Per-update values are kept as floats and written as their mean every `every` updates, at the
    last update of the window; what an epoch or the training leaves over is a shorter window, so
    that each value enters one point. Steps whose log has no such value count for nothing. The
    throughput of the first window is left out: compilation is in it.

    A third run, `published`, holds the paper's final error as a line on the chart of the error.

    `folder` itself gets, once and at step 0, the plan (text, `config`), the hparams with their
    metrics, and the layout of the custom-scalar page.

    A training that goes on at `first_update` appends to the folder and repeats none of the latter;
    the best top-1 is read back from it.

    Only the chief should have this callback.

    Args:
        folder: the run's folder, made where it is missing.
        every: updates per point, >= 1.
        plan_markdown: the resolved plan.
        hparams: name to bool, number or text: what a table of many runs is sorted by.
        first_update: updates already done when training starts, >= 0.
        published: (epoch, top-1 error in percent) of the paper's result, or None where this run
            cannot be held against it.

    Raises:
        ValueError: a number out of range, or an hparam of another type.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        plan_markdown: str,
        hparams: dict[str, float | str | int | bool],
        first_update: int = 0,
        published: tuple[float, float] | None = None,
    ):
        super().__init__()
        for name, value, least in (
            ("every", every, 1),
            ("first_update", first_update, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"`{name}` must be a whole number of at least {least}. "
                    f"Received: {name}={value!r}"
                )
        for name, value in hparams.items():
            if not isinstance(value, bool | int | float | str):
                raise ValueError(
                    "`hparams` must hold booleans, numbers and text. Received: "
                    f"hparams[{name!r}]={value!r}. Leave it out, or write it as text"
                )
        self._folder, self._every = Path(folder), every
        self._plan_markdown, self._hparams = plan_markdown, dict(hparams)
        self._first_update, self._published = first_update, published

    def on_train_begin(self, logs=None):
        """Opens the writers; at the start of a run, writes what is written once."""
        self._writers = {
            name: tf.summary.create_file_writer(str(self._folder / name))
            for name in ("", "train", "validation")
        }
        self._updates = self._first_update
        self._best_top1 = None
        self._compiled = False
        self._clear()
        if self._first_update:
            self._best_top1 = _last_value(self._folder / "validation", METRICS[0][0])
            return
        with self._writers[""].as_default(step=0):
            tf.summary.text("config", self._plan_markdown)
            _write(_experiment(self._hparams))
            _write(hparams_summary.session_start_pb(self._hparams))
            _write(custom_scalar.pb(_layout()))
        if self._published is not None:
            last, error = self._published
            writer = tf.summary.create_file_writer(str(self._folder / "published"))
            with writer.as_default():
                for epoch in (1, round(last)):
                    tf.summary.scalar("epoch/error_pct", error, step=epoch)
            writer.close()

    def on_train_batch_end(self, batch, logs=None):
        """Keeps one update's values, and writes the window when it is full."""
        self._updates = batch + 1
        self._count += 1
        self._newest = logs
        for name, _, _ in PER_UPDATE:
            if name in logs:
                self._values[name].append(float(logs[name]))
        if self._count == self._every:
            self._write_window()

    def on_epoch_end(self, epoch, logs=None):
        """Writes the epoch, after the updates it left over."""
        self._write_window()
        top1 = 1 - logs["validation_error_pct"] / 100
        if self._best_top1 is None or top1 > self._best_top1:
            self._best_top1 = top1
        with self._writers["train"].as_default(step=epoch + 1):
            tf.summary.scalar("epoch/loss", logs["train_loss"])
            tf.summary.scalar("epoch/error_pct", logs["train_error_pct"])
            tf.summary.scalar("epoch/top1", 1 - logs["train_error_pct"] / 100)
        with self._writers["validation"].as_default(step=epoch + 1):
            tf.summary.scalar("epoch/loss", logs["validation_loss"])
            tf.summary.scalar("epoch/error_pct", logs["validation_error_pct"])
            tf.summary.scalar("epoch/top1", top1)
            tf.summary.scalar("epoch/top1_best", self._best_top1)
            tf.summary.scalar("epoch/top5", 1 - logs["validation_top5_error_pct"] / 100)

    def on_train_end(self, logs=None):
        """Writes what is left, marks the run as finished and closes the files."""
        self._write_window()
        with self._writers[""].as_default(step=0):
            _write(hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS))
        for writer in self._writers.values():
            writer.close()

    def _write_window(self):
        if not self._count:
            return
        # `as_default` flushes as it ends: a run that is killed or diverges keeps what tells why.
        with self._writers["train"].as_default(step=self._updates):
            for name, tag, mean in PER_UPDATE:
                values = self._values[name]
                if values and (self._compiled or not tag.startswith("throughput/")):
                    tf.summary.scalar(tag, mean(values))
            for name in ("images_seen", "global_batch"):
                if name in self._newest:
                    tf.summary.scalar(name, self._newest[name])
        self._compiled = True
        self._clear()

    def _clear(self):
        self._count = 0
        self._newest = {}
        self._values = {name: [] for name, _, _ in PER_UPDATE}


def _write(summary) -> None:
    tf.summary.experimental.write_raw_pb(summary.SerializeToString())


def _experiment(hparams: dict):
    """The columns of the hparams page."""
    types = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    # TensorBoard takes the columns of all runs from one of them. A domain of this run's values
    # would hide the runs that have others.
    columns = [
        api_pb2.HParamInfo(name=name, type=types.get(type(value), api_pb2.DATA_TYPE_FLOAT64))
        for name, value in hparams.items()
    ]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(group="validation", tag=tag), display_name=title)
        for tag, title in METRICS
    ]
    return hparams_summary.experiment_pb(columns, metrics)


def _layout() -> layout_pb2.Layout:
    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[pattern]))
        for title, pattern in CHARTS
    ]
    return layout_pb2.Layout(category=[layout_pb2.Category(title=CATEGORY, chart=charts)])


def _last_value(folder: Path, tag: str) -> float | None:
    """Reads the newest value of a scalar back, or None where there is none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return None
    events = EventAccumulator(str(folder), size_guidance={"tensors": 1})
    events.Reload()
    if tag not in events.Tags()["tensors"]:
        return None
    return float(tf.make_ndarray(events.Tensors(tag)[-1].tensor_proto))
