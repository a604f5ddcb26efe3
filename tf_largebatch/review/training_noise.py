"""The gradient noise scale that a run measured while it trained, read back from its events."""

import math
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tf_largebatch.review.figures import draw_noise
from tf_largebatch.review.findings import FOLDER
from tf_largebatch.review.measurement import Measurement, write_measurements
from tf_largebatch.review.noise_scale import NoiseEstimate, advise

NOISE = "noise"  # of a run: the events of `NoiseScaleScalars`
NAME = "noise_while_training"


def keep_noise(run: Path, *, global_batch: int) -> None:
    """Writes what a run's events say of its noise scale next to the other instruments' files.

    A run without such events gets nothing.

    Args:
        run: its folder.
        global_batch: of its last updates.
    """
    found = measure_training_noise(run, global_batch=global_batch)
    if found is not None:
        facts = {"updates": found.numbers["updates"], "global batch": global_batch}
        write_measurements([found], run / FOLDER, step=facts["updates"], facts=facts, events=False)


def measure_training_noise(run: Path, *, global_batch: int) -> Measurement | None:
    """Returns the course of B_simple and the last average's advice, or None without events.

    Args:
        run: the folder of a run.
        global_batch: of its last updates.
    """
    if not (run / NOISE).is_dir():
        return None
    events = EventAccumulator(str(run / NOISE), size_guidance={"tensors": 0})
    events.Reload()
    if not {"noise/grad_sq", "noise/trace"} <= set(events.Tags()["tensors"]):
        return None
    grad_sq, trace = _curve(events, "noise/grad_sq"), _curve(events, "noise/trace")
    updates = sorted(set(grad_sq) & set(trace))
    if not updates:  # killed between the first two points
        return None
    estimates = [NoiseEstimate(grad_sq[u], trace[u]) for u in updates]
    last = estimates[-1]
    advice = advise(last, global_batch=global_batch, updates=updates[-1])
    # The first averages are of a few updates: shown from where the callback gives a scale itself.
    told = _curve(events, "noise/b_simple") if "noise/b_simple" in events.Tags()["tensors"] else {}
    scales = np.array([told.get(u, math.nan) for u in updates])
    return Measurement(
        name=NAME,
        title="gradient noise scale while training (McCandlish et al. 2018)",
        lines=(("noise scale at the end", advice),),
        numbers={
            "grad_sq": last.grad_sq,
            "trace": last.trace,
            "b_simple": last.b_simple,
            "updates": updates[-1],
            "advice": advice,
        },
        arrays={
            "updates": np.array(updates),
            "grad_sq": np.array([e.grad_sq for e in estimates]),
            "trace": np.array([e.trace for e in estimates]),
            "b_simple": scales,
        },
        figure=draw_noise(updates, scales, global_batch, xlabel="updates"),
    )


def _curve(events: EventAccumulator, tag: str) -> dict[int, float]:
    """Update -> value; of an update that a restart did again, the newer one."""
    return {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}
