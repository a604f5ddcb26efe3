"""The same training on 1, 2 and 4 workers, on 2 x 2 devices and in micro-batches."""

import functools

import numpy as np
import pytest
from engine_split import Split, train, train_all
from workers import run_workers

pytestmark = pytest.mark.slow

# workers, devices on each, micro-batch (the batch of 32 has ghost batches of 4)
SPLITS = {
    "one process, micro-batches": (1, 1, 8),
    "two devices": (1, 2, None),
    "two workers": (2, 1, None),
    "two workers, micro-batches": (2, 1, 4),
    "four workers": (4, 1, None),
    "two workers of two devices": (2, 2, None),
    "two workers of two devices, micro-batches": (2, 2, 4),
}
KINDS = {
    "plain": {},
    "ghost batch norm": {"norm": True},
    "dropout and ghost batch norm": {"norm": True, "dropout": True},
}


@functools.cache
def whole(kind):
    return train(Split(**KINDS[kind]))


@functools.cache
def split(name):
    """What every worker of a split ended with, by kind."""
    workers, devices, micro_batch = SPLITS[name]
    splits = {
        kind: Split(devices=devices, micro_batch=micro_batch, **options)
        for kind, options in KINDS.items()
    }
    if workers == 1:
        return [train_all(splits)]
    return run_workers(train_all, workers, splits=splits)


@pytest.mark.xdist_group("engine workers")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPLITS)
def test_twenty_updates_give_the_weights_of_one_process(name, kind):
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


def test_the_dropout_of_this_test_changes_the_training():
    difference = whole("ghost batch norm")["loss"] - whole("dropout and ghost batch norm")["loss"]
    assert np.abs(difference).max() > 0.01
