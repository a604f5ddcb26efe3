"""What a finished run left in its folder, read back without the recipe that made it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.diagnostics.objective import Batch
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import DATA_SPECS, DataSpec
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json, read_sealed
from tf_largebatch.records.model_spec import LossSpec, ModelSpec
from tf_largebatch.records.run_folder import MODEL, PLAN, SEED

NAMED = 12  # runs in an error
# Images without mixing, and without augmentation in a training of one epoch.
PLAIN = {"plain_last_epochs": 1.0, "randaugment_magnitude": 0.0}
PLAIN |= {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}
WEIGHT = "optimizer/_trainable_variables/{}/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One run of one recipe with one seed."""

    folder: Path  # holds `plan.json` and `model.keras`
    data: DataSpec  # the training images without augmentation or mixing
    model: ModelSpec  # the network as it is exported, with Keras's own batch norm
    loss: LossSpec
    seed: int | None  # of the weights; None where the run did not note it
    updates: int
    global_batch: int  # of its last phase

    @property
    def images_folder(self) -> Path | None:
        """The generated images of a smoke run."""
        own = self.folder / "images"
        return own if own.is_dir() else None

    def load_model(self) -> keras.Model:
        """Returns the exported network; an `InputError` where its file cannot be read."""
        try:
            return keras.saving.load_model(self.folder / MODEL, compile=False)
        except Exception as error:  # a damaged archive fails in as many ways as it has layers
            reason = str(error).strip().splitlines()[:1]
            raise InputError(
                f"{self.folder / MODEL} cannot be read ({''.join(reason)[:120]}). Run it again"
            ) from None

    def checkpoint_weights(self) -> dict[int, list[np.ndarray]]:
        """Returns update -> trainable weights of every checkpoint that is kept and whole."""
        found = {}
        for path in (self.folder / "checkpoints").glob("ckpt-*.index"):
            update = int(path.stem.removeprefix("ckpt-"))
            try:
                reader = tf.train.load_checkpoint(str(path.with_suffix("")))
                names = reader.get_variable_to_shape_map()
                tensors: list[np.ndarray] = []
                while (name := WEIGHT.format(len(tensors))) in names:
                    tensors.append(reader.get_tensor(name))
            except (tf.errors.OpError, IndexError):
                continue
            if update and tensors:
                found[update] = tensors
        return found


def open_run(folder: Path) -> FinishedRun:
    """Reads a run's folder; an `InputError` says why it is not one finished run's."""
    plan = folder / PLAN
    if not plan.exists():
        below = [*folder.glob(f"*/{PLAN}"), *folder.glob(f"*/*/{PLAN}")]
        inside = sorted(str(p.parent.relative_to(folder)) for p in below)
        if inside:
            raise InputError(
                f"RUN must be one run. Received: {folder}, which holds {len(inside)}. Choose one: "
                f"{', '.join(inside[:NAMED])}{', ...' * (len(inside) > NAMED)}"
            )
        raise InputError(f"RUN must be a run's folder. Received: {folder}, which has no {PLAN}")
    if not (folder / MODEL).exists():
        raise InputError(
            f"RUN must hold a finished run's {MODEL}. Received: {folder}, which has none. Continue "
            "the run to its end with the same command and --run-dir"
        )
    try:
        kept = read_json(plan)
        recipe = kept["recipe"]
        done = _result(folder)
        phases = [kept["batch"]["global_batch"], *(phase[2] for phase in kept.get("growth", []))]
        return FinishedRun(
            folder=folder,
            data=_record(DATA_SPECS[recipe["data"]["name"]], recipe["data"] | PLAIN),
            model=_record(ModelSpec, recipe["model"] | {"bn_batch": None}),
            loss=_record(LossSpec, recipe.get("loss", {})),
            seed=done.get("seed"),
            # A run that stops at its target makes fewer than its plan has.
            updates=done["epochs"][-1]["update"] if done.get("epochs") else int(kept["updates"]),
            global_batch=int(phases[-1]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{plan} is damaged or of another version ({type(error).__name__}: {error})"
        ) from None


def read_images(dataset, images: int | None, *, at_most: int, micro_batch: int) -> list[Batch]:
    """Returns training images in the order of the first epoch, in batches of `micro_batch`.

    `images` of None takes all, up to `at_most`; the last batch may have fewer.
    """
    there = dataset.train_examples
    wanted = min(there, at_most) if images is None else images
    if wanted > there:
        raise InputError(f"--images must be at most {there:,}, all there are. Received: {wanted:,}")
    size = min(micro_batch, wanted)
    plan = BatchPlan(global_batch=size, train_examples=there)
    batches: list[Batch] = []
    for x, y in dataset.train_batches(plan, seed=0).take(-(-wanted // size)):
        left = wanted - size * len(batches)
        batches.append((x[:left], y[:left]))
    return batches


def _record(kind: type, values: dict):
    """Makes a record of plain data: JSON has lists where the record has tuples."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{k: _tuples(v) for k, v in values.items() if k in known})


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _result(folder: Path) -> dict:
    mark = folder / SEED
    try:
        return read_sealed(mark) if mark.exists() else {}
    except ValueError as error:
        raise InputError(f"{mark} cannot be read ({error}). Run it again") from None
