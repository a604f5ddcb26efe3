"""The data of the studies, split once: a trial that tunes cannot reach the test set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tf_largebatch.data import small_image_files
from tf_largebatch.records.errors import InputError
from tf_largebatch.studies.study import FINAL

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10")
HELD_OUT = 5_000  # of the training set, for tuning; at most a tenth of it
SPLIT_SEED = 20_181_108  # ours: any number, the same for every study

Part = tuple[np.ndarray, np.ndarray]  # images uint8 [n, h, w, c], labels int32 [n]


class TuningReadsTestError(RuntimeError):
    """A trial that tunes asked for the test set, or for a training set with the held-out part."""


@dataclass(frozen=True)
class Split:
    """One data set as a trial of a stage may see it.

    Attributes:
        train: the training set without its held-out part.
        held_out: for tuning: the rates of every row, the epoch to stop at.
    """

    name: str
    stage: str
    train: Part
    held_out: Part
    _test: Part = field(repr=False)

    @property
    def test(self) -> Part:
        """The test set; of a final trial only."""
        self._refuse("test set")
        return self._test

    @property
    def all_train(self) -> Part:
        """The whole training set, `train` and then `held_out`; of a final trial only."""
        self._refuse("whole training set")
        images, labels = (
            np.concatenate(pair) for pair in zip(self.train, self.held_out, strict=True)
        )
        return images, labels

    def _refuse(self, what: str) -> None:
        if self.stage != FINAL:
            raise TuningReadsTestError(f"a trial of stage {self.stage!r} asked for the {what}")


@dataclass
class Sets:
    """The data sets below one folder, each in its own: DIR/mnist, DIR/fashion_mnist, DIR/cifar10.

    Without a folder they are downloaded by `keras.datasets`; the digits come with scikit-learn.
    """

    folder: Path | None = None
    _loaded: dict[str, tuple[Part, Part, Part]] = field(default_factory=dict, repr=False)

    def load(self, name: str, stage: str) -> Split:
        """Returns a data set; `stage` is the trial's, `settings["stage"]`."""
        if name not in self._loaded:
            self._loaded[name] = _split(*self._read(name))
        return Split(name, stage, *self._loaded[name])

    def _read(self, name: str) -> tuple[Part, Part]:
        if name == "digits":
            return _digits()
        folder = None if self.folder is None else self.folder / name
        return small_image_files.read(name, folder)

    def check(self, names: Any) -> None:
        """Raises InputError unless the folder has these data sets."""
        for name in names:
            if self.folder is None or name == "digits":
                continue
            if not (self.folder / name).is_dir():
                raise InputError(
                    f"--data must hold a folder {name}. Received: {self.folder}. Put its files "
                    f"there, or leave --data out to download them"
                )


def _split(train: Part, test: Part) -> tuple[Part, Part, Part]:
    images, labels = train
    count = min(HELD_OUT, len(images) // 10)
    places = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    held, kept = np.sort(places[:count]), np.sort(places[count:])
    parts = ((images[kept], labels[kept]), (images[held], labels[held]), test)
    fixed = [(images, labels.astype(np.int32).reshape(-1)) for images, labels in parts]
    return fixed[0], fixed[1], fixed[2]


def _digits() -> tuple[Part, Part]:
    """scikit-learn's digits with the split of `data/digits.py`, 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    places = np.random.RandomState(0).permutation(len(images))
    train, test = places[:1_280], places[1_280:]
    return (images[train], bunch.target[train]), (images[test], bunch.target[test])
