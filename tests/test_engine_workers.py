"""The same training on 1, 2 and 4 workers, on 2 x 2 devices and in micro-batches."""

import functools
import pickle

import numpy as np
import pytest
from commands import make_once
from engine_split import Split, train, train_all
from workers import run_workers

# workers, devices on each, micro-batch (the batch of 32 has ghost batches of 4)
SPLITS = {
    "one process, micro-batches": (1, 1, 8),
    "two devices": (1, 2, None),
    "two workers, micro-batches": (2, 1, 4),
    "four workers": (4, 1, None),
    "two workers of two devices, micro-batches": (2, 2, 4),
}
KINDS = {
    "plain": {},
    "ghost batch norm": {"norm": True},
    "dropout and ghost batch norm": {"norm": True, "dropout": True},
}
QUICK = ("two workers, micro-batches", "dropout and ghost batch norm")
CASES = [
    pytest.param(name, kind, marks=[] if (name, kind) == QUICK else pytest.mark.slow)
    for name in SPLITS
    for kind in KINDS
    if name != QUICK[0] or kind == QUICK[1]  # the other kinds run on more workers and devices
]


@functools.cache
def whole(kind):
    return train(Split(**KINDS[kind]))


@pytest.fixture
def split(tmp_path_factory):
    """What every worker of a split ended with, by kind."""

    def results(name):
        workers, devices, micro_batch = SPLITS[name]
        splits = {
            kind: Split(devices=devices, micro_batch=micro_batch, **options)
            for kind, options in KINDS.items()
            if name != QUICK[0] or kind == QUICK[1]
        }

        def make(folder):
            if workers == 1:
                done = [train_all(splits)]
            else:
                done = run_workers(train_all, workers, splits=splits)
            (folder / "results").write_bytes(pickle.dumps(done))

        folder = make_once(tmp_path_factory, name.replace(" ", "-"), make)
        return pickle.loads((folder / "results").read_bytes())

    return results


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_twenty_updates_give_the_weights_of_one_process(split, name, kind):
    expected = whole(kind)
    moved = max(
        np.abs(a - b).max() for a, b in zip(expected["before"], expected["weights"], strict=True)
    )
    assert moved > 0.1  # or the comparison would say nothing
    for results in split(name):
        result = results[kind]
        for a, b in zip(expected["weights"], result["weights"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(expected["loss"], result["loss"], rtol=1e-5)
        # 53 examples in batches of 4 over 1, 2 or 4 replicas: none divides them.
        assert result["scores"] == pytest.approx(expected["scores"], rel=1e-5)


@pytest.mark.slow
def test_the_dropout_of_this_test_changes_the_training():
    difference = whole("ghost batch norm")["loss"] - whole("dropout and ghost batch norm")["loss"]
    assert np.abs(difference).max() > 0.01
