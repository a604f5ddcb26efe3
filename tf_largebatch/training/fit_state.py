"""All that a compiled Keras model is in the middle of `fit`, as arrays and as files.

What Keras itself passes from step to step: weights, optimizer, the rest of the model's state (batch
normalisation, the seeds of dropout) and the running metrics. Any backend; docs/checkpoint.md.
"""

import io
import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_largebatch.records.errors import InputError, NonFiniteError, StorageError
from tf_largebatch.records.files import write_bytes
from tf_largebatch.training.workers.team import Team

FORMAT = 1  # of a file
EQUAL, OWN = ("weights", "optimizer"), ("state", "metrics")  # on all replicas, on each
# zipfile finds a bad checksum, NumPy a cut array.
_READ_ERRORS = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


def variables_of(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """The variables of each part, in Keras's order."""
    return {
        "weights": model.trainable_variables,
        "optimizer": model.optimizer.variables,
        "state": model.non_trainable_variables,
        "metrics": model.metrics_variables,
    }


def describe(model: keras.Model) -> list[list]:
    """Rows [part, path, shape, dtype] of all variables, as a file lists its arrays."""
    parts = variables_of(model).items()
    return [[p, v.path, list(v.shape), str(v.dtype)] for p, held in parts for v in held]


def difference(there: Sequence[Sequence], here: Sequence[Sequence], *parts: str) -> str | None:
    """The first variable of these parts that is another one, in words; None where all fit.

    Keras numbers the names of a process's layers: those numbers do not count.
    """
    old, new = ([row for row in rows if row[0] in parts] for rows in (there, here))
    for a, b in zip(old, new, strict=False):
        if (_plain(a[1]), a[2:]) != (_plain(b[1]), b[2:]):
            return f"{_words(a)} there, {_words(b)} here"
    if len(old) == len(new):
        return None
    longer, where = (old, "there") if len(old) > len(new) else (new, "here")
    return f"{_words(longer[min(len(old), len(new))])} only {where}"


def _plain(path: str) -> str:
    return re.sub(r"_\d+(?=[/_]|$)", "", path)


def _words(row: Sequence) -> str:
    return f"{row[1]} of shape {tuple(row[2])} and {row[3]}"


def take(model: keras.Model, team: Team) -> list[np.ndarray]:
    """The arrays of `describe`: one for all replicas where they are equal, else one of each.

    Of several workers, every one must call it: the replicas' own are gathered.
    """
    parts = variables_of(model)
    equal = [np.asarray(_copies(v, team)[0]) for p in EQUAL for v in parts[p]]
    mine = [[np.asarray(c) for c in _copies(v, team)] for p in OWN for v in parts[p]]
    texts = team.gather(b"".join(a.tobytes() for held in mine for a in held))
    stacks: list[list[np.ndarray]] = [[] for _ in mine]
    for text in texts:
        place = 0
        for stack, held in zip(stacks, mine, strict=True):
            for array in held:
                data = text[place : place + array.nbytes]
                stack.append(np.frombuffer(data, array.dtype).reshape(array.shape))
                place += array.nbytes
    return equal + [np.stack(stack) for stack in stacks]


def put(model: keras.Model, team: Team, rank: int, arrays: Sequence[np.ndarray], *parts: str):
    """Writes the arrays of `take` back, those of these parts; the same on every worker.

    From another number of replicas, all get the mean of what floats, the first one's counts, and
    the first one the sum of the metrics.
    """
    held = [(p, v) for p, variables in variables_of(model).items() for v in variables]
    for (part, variable), array in zip(held, arrays, strict=True):
        if part not in parts:
            continue
        copies = _copies(variable, team)
        first = rank * len(copies)
        for place, copy in enumerate(copies, start=first):
            copy.assign(array if part in EQUAL else _of_replica(part, array, place, team.replicas))


def _of_replica(part: str, stack: np.ndarray, replica: int, replicas: int) -> np.ndarray:
    if len(stack) == replicas:
        return stack[replica]
    if part == "metrics":
        return stack.sum(axis=0, dtype=stack.dtype) if replica == 0 else np.zeros_like(stack[0])
    return stack.mean(axis=0, dtype=stack.dtype) if stack.dtype.kind == "f" else stack[0]


def _copies(variable: keras.Variable, team: Team) -> Sequence:
    """What this process holds of a variable: one of each of its replicas."""
    if team.strategy is None:
        return [variable]
    return team.strategy.experimental_local_results(variable.value)


def check_finite(rows: Sequence[Sequence], arrays: Sequence[np.ndarray], update: int) -> None:
    """NonFiniteError where a tensor besides the metrics is not finite after so many updates."""
    for (part, path, _, _), array in zip(rows, arrays, strict=True):
        # NumPy has no kind for bfloat16.
        values = array if array.dtype.kind in "fiub" else array.astype(np.float32)
        if part != "metrics" and not np.isfinite(values).all():
            raise NonFiniteError(
                f"update {update - 1}: {path} is not finite after it, and no checkpoint was "
                "written. Lower the rate or lengthen the warmup",
                update - 1,
            )


@dataclass(frozen=True)
class Checkpoint:
    """One file: plain data about it, and the arrays."""

    path: Path
    facts: Mapping[str, Any]
    arrays: list[np.ndarray]


class StateFiles:
    """The checkpoints of one `fit` in a folder of their own, the newest `keep` of them.

    A file is whole or not there: it is written beside its name, brought to the disk and renamed,
    and each array in it has a checksum.
    """

    def __init__(self, folder: Path, keep: int):
        self._folder, self._keep = folder, keep

    def save(self, batches: int, facts: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Writes the checkpoint after so many batches; StorageError where it cannot."""
        out = io.BytesIO()
        text = json.dumps({"format": FORMAT, **facts}, default=lambda v: np.asarray(v).tolist())
        # NumPy's files have no bfloat16: its bytes, and the name in the facts.
        plain = [a if a.dtype.kind in "fiub" else a.view(np.uint16) for a in arrays]
        named = {str(place): array for place, array in enumerate(plain)}
        np.savez(out, **named, facts=np.frombuffer(text.encode(), np.uint8))  # type: ignore[arg-type]
        path = self._path(batches)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, out.getbuffer(), sync=True)
            for number in self._numbers()[: -self._keep]:
                if number < batches:
                    self._path(number).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {path} could not be written ({os.strerror(error.errno or 0)}). "
                "Make room: the same training then continues from the newest one that is whole"
            ) from None

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest that is whole, None without any, and why newer ones are not.

        InputError: there are some, and none is whole or one is of a later format.
        """
        damaged: list[str] = []
        for number in reversed(self._numbers()):
            try:
                return self._read(number), damaged
            except _READ_ERRORS as error:
                if isinstance(error, InputError):
                    raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                damaged.append(f"checkpoint {self._path(number)} cannot be read ({reason})")
        if damaged:
            remedy = f"Remove {self._folder} to begin again, or choose another folder"
            raise InputError(f"{damaged[0]}. {remedy}")
        return None, damaged

    def _read(self, number: int) -> Checkpoint:
        path = self._path(number)
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            if facts["format"] > FORMAT:
                raise InputError(
                    f"checkpoint {path} is of format {facts['format']}. This version reads format "
                    f"{FORMAT}: continue with the version that wrote it, or choose another folder"
                )
            if facts["batches"] != number:
                raise ValueError(f"it is of batch {facts['batches']:,}")
            dtypes = [keras.backend.standardize_dtype(row[3]) for row in facts["variables"]]
            arrays = [_as_dtype(file[str(place)], dtype) for place, dtype in enumerate(dtypes)]
        return Checkpoint(path, facts, arrays)

    def _path(self, number: int) -> Path:
        return self._folder / f"fit-{number}.npz"

    def _numbers(self) -> list[int]:
        names = (path.name for path in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(int(m[1]) for n in names if (m := re.fullmatch(r"fit-(\d+)\.npz", n)))


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return array
    import ml_dtypes  # of Keras and of every backend

    return array.view(ml_dtypes.bfloat16)


def policies_of(model: keras.Model) -> set[str]:
    """The precisions of the layers that have weights."""
    return {layer.dtype_policy.name for layer in model._flatten_layers() if layer.weights}


def brief(value: Any) -> str:
    """A value of `flat` in few digits."""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def flat(name: str, value: Any) -> dict[str, Any]:
    """Nested configurations as one level: names with dots, plain values."""
    if isinstance(value, Mapping):
        # Keras numbers the names of a process's optimizers.
        own: Iterable = ((k, inner) for k, inner in value.items() if k != "name")
        pairs = ((f"{name}.{key}", inner) for key, inner in own)
        return {k: v for key, inner in pairs for k, v in flat(key, inner).items()}
    if isinstance(value, list | tuple):
        return {name: str([flat("", inner) for inner in value])}
    plain = value if isinstance(value, bool | int | str | float | None) else None
    return {name: plain if plain is not None or value is None else str(value)}
