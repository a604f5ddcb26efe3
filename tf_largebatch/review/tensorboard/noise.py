"""The gradient noise scale while a model trains, from gradients that are there anyway.

A callback writes it to TensorBoard; at the end of the run its course is read back for the report.
"""

import math
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from tf_largebatch.records.checks import check_count
from tf_largebatch.review import noise_scale
from tf_largebatch.review.figures import draw_noise
from tf_largebatch.review.findings import FOLDER, Finding, write_findings
from tf_largebatch.review.noise_scale import NoiseEstimate, NoiseScale
from tf_largebatch.review.tensorboard.fit_logs import FitLogs, check_gradients
from tf_largebatch.review.tensorboard.summaries import EventFile, read_scalars

# Folders of a run with the events of `NoiseScaleScalars`: one of its own in earlier versions.
PLACES = ("noise", "train")
STATE = ("grad_sq", "trace", "estimates", "global_batch")  # of the averages
NEEDED = ("grad_norm", "micro_grad_norm", "micro_batch", "global_batch")


class NoiseScaleScalars(keras.callbacks.Callback):
    """Writes B_simple of a run to TensorBoard: no extra forward pass.

    Reads from the logs of every update `grad_norm` (of the global batch's mean gradient),
    `micro_grad_norm` (root mean square of the norms of the micro-batches' mean gradients),
    `micro_batch` and `global_batch`; the micro-batches of all replicas are the small batches of
    `from_two_batches`. The averages start anew where the batch changes, since the rate does too; a
    training that is continued goes on from the last point in `folder`.

    Under `fit` they come from `DistributedFit` on several replicas or with `micro_batch`; every
    worker may have this callback, and the chief writes.

        model.fit(x, y, batch_size=1024, micro_batch=128,
                  callbacks=[NoiseScaleScalars("runs/mine/train")])

    Tags, every `every` updates: `noise/grad_sq` and `noise/trace` (averages), `noise/estimates` and
    `noise/global_batch` (how many updates of which batch are in them), and `noise/b_simple` where
    they give one and enough updates are in them. `noise/advice`, at the end of a `fit`, is the last
    average in words.

    Args:
        folder: for its events; `train` below that of `TensorBoardScalars` puts them beside its own.
        every: updates per point, >= 1.
        decay: of the averages per update, in [0, 1).

    Attributes:
        scale: the running estimate.

    Raises:
        ValueError: a number out of range; before the first update of a `fit`, one that has a single
            gradient an update; from the first update of another loop on, logs without these values.

    Example:
        >>> import tempfile
        >>> from tf_largebatch import NoiseScaleScalars
        >>> noise = NoiseScaleScalars(tempfile.mkdtemp(), every=20)
        >>> logs = {"grad_norm": 1.0, "micro_grad_norm": 2.0}
        >>> logs |= {"micro_batch": 32, "global_batch": 256}
        >>> noise.on_train_begin()
        >>> for update in range(40):
        ...     noise.on_train_batch_end(update, logs)
        >>> round(noise.scale.b_simple)  # (4 - 1) / (1/32 - 1/256) over (256 - 32 * 4) / (256 - 32)
        192
    """

    def __init__(self, folder: str | Path, *, every: int = 20, decay: float = noise_scale.DECAY):
        super().__init__()
        check_count("every", every, 1)
        self._folder, self._every, self._decay = Path(folder), every, decay
        self.scale = NoiseScale(decay)
        self._updates, self._global_batch = 0, 0
        self._fit: FitLogs | None = None
        self._file: EventFile | None = None

    @property
    def advice(self) -> str:
        """What the estimate means for the batch, in a sentence."""
        size, updates = self._global_batch or None, self._updates
        return noise_scale.advise(self.scale.average, global_batch=size, updates=updates)

    def on_train_begin(self, logs=None):
        """Opens the file; refuses a `fit` without gradients to compare."""
        self._fit, self._file, self._under_fit = None, None, bool(self.params)
        if self._under_fit:
            check_gradients(self.model)
        else:
            self._file = EventFile.of(self._folder)

    def on_epoch_begin(self, epoch, logs=None):
        """Under `fit`, opens the file with the first."""
        if not self._under_fit:
            return
        if self._fit is None:
            self._fit = FitLogs(self.model)
            self._updates = self._fit.update
            if self._fit.writes:
                shared = EventFile.is_open(self._folder)  # by what has set the mark already
                self._file = EventFile.of(self._folder)
                if not shared:
                    self._file.drop_from(self._updates + 1)
        self._fit.begin_epoch()

    def on_train_batch_end(self, batch, logs=None):
        """Adds one update."""
        if self._fit is not None:
            before = self._fit.update
            logs = self._fit.after_batch(batch, logs or {})
            if logs is None:  # none was made
                return
            batch = self._fit.update - 1
            passed = self._fit.update // self._every > before // self._every
        else:
            passed = (batch + 1) % self._every == 0
        self._add(logs or {}, done=batch)
        self._updates = batch + 1
        if passed and self._file is not None:
            self._write()

    def on_train_end(self, logs=None):
        """At the end of a `fit`, writes the advice."""
        if self._file is not None and self._fit is not None and self.scale.count:
            self._file.write(self._updates, [text_pb("noise/advice", self.advice)])

    def _add(self, logs, *, done):
        missing = [name for name in NEEDED if name not in logs]
        if missing:
            raise ValueError(
                f"`logs` must have {', '.join(NEEDED)}. Received: no {missing[0]}. Train with "
                "this package's loop, or with DistributedFit"
            )
        if logs["global_batch"] != self._global_batch:
            first = not self._global_batch
            self._global_batch, self.scale = int(logs["global_batch"]), NoiseScale(self._decay)
            if first and done:
                self._go_on(done)
        squares = logs["micro_grad_norm"] ** 2, logs["grad_norm"] ** 2
        sizes = {"small_batch": int(logs["micro_batch"]), "big_batch": self._global_batch}
        self.scale.add(noise_scale.from_two_batches(*squares, **sizes))

    def _go_on(self, done):
        """Takes up the averages of the last point up to `done` updates, if of the same batch."""
        told = read_scalars(self._folder, *(f"noise/{name}" for name in STATE))
        updates = [update for update in set.intersection(*map(set, told)) if update <= done]
        if not updates:
            return
        grad_sq, trace, count, batch = (values[max(updates)] for values in told)
        if batch == self._global_batch:
            self.scale.go_on(NoiseEstimate(grad_sq, trace), round(count))

    def _write(self):
        average = self.scale.average
        if average is None:
            return
        values = average.grad_sq, average.trace, self.scale.count, self._global_batch
        points = [scalar_pb(f"noise/{n}", v) for n, v in zip(STATE, values, strict=True)]
        if average.b_simple is not None and self.scale.count >= noise_scale.WARM_ESTIMATES:
            points.append(scalar_pb("noise/b_simple", average.b_simple))
        self._file.write(self._updates, points)


def keep_noise(run: Path, *, global_batch: int) -> None:
    """Writes what a run's events say of its noise scale next to the other instruments' files.

    The course of B_simple, and the last average's advice; nothing without events. `global_batch` is
    that of the last updates.
    """
    tags = ("noise/grad_sq", "noise/trace", "noise/b_simple")
    places = [read_scalars(run / place, *tags) for place in PLACES]
    grad_sq, trace, told = (old | new for old, new in zip(*places, strict=True))
    updates = sorted(set(grad_sq) & set(trace))
    if not updates:  # without events, or killed between the first two points
        return
    averages = {"grad_sq": grad_sq, "trace": trace}
    last = NoiseEstimate(**{name: at[updates[-1]] for name, at in averages.items()})
    advice = noise_scale.advise(last, global_batch=global_batch, updates=updates[-1])
    # The first averages are of a few updates: shown from where the callback gives a scale itself.
    scales = [told.get(u, math.nan) for u in updates]
    numbers = asdict(last) | {"b_simple": last.b_simple, "updates": updates[-1], "advice": advice}
    arrays = {name: np.array([at[u] for u in updates]) for name, at in averages.items()}
    found = Finding(
        name="noise_while_training",
        title="gradient noise scale while training (McCandlish et al. 2018)",
        lines=(("noise scale at the end", advice),),
        numbers=numbers,
        arrays={"updates": np.array(updates)} | arrays | {"b_simple": np.array(scales)},
        figure=draw_noise(updates, scales, global_batch, xlabel="updates"),
    )
    facts = {"updates": updates[-1], "global batch": global_batch}
    write_findings([found], run / FOLDER, step=updates[-1], facts=facts, events=False)
