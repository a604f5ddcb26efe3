"""The largest micro-batch that fits, by trying."""

import dataclasses

import pytest
import tensorflow as tf

from tf_largebatch.data import digits
from tf_largebatch.recipes.goyal_8k import LARGE, RECIPE
from tf_largebatch.training import micro_batch


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 31, 32, 100, 256, 1000])
def test_bisection_finds_the_largest_that_fits_in_few_tries(limit):
    sizes, tried = [1, 2, 4, 8, 16, 32, 64, 128, 256], []

    def fits(size):
        tried.append(size)
        return size <= limit

    expected = max((size for size in sizes if size <= limit), default=None)
    assert micro_batch.largest(sizes, fits) == expected
    assert len(tried) <= 4  # log2 of 9, rounded up


def test_the_sizes_are_those_that_keep_the_batch_norm_batch():
    # 8,192 on 8 replicas: 1,024 each, in multiples of 32 that divide it.
    assert micro_batch.candidates(RECIPE, 8, 1_281_167) == [32, 64, 128, 256, 512, 1024]
    free = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, bn_batch=None))
    assert micro_batch.candidates(free, 1024, 1_281_167) == [1, 2, 4, 8]


class Alone:
    replicas = 1

    def least(self, number):
        return number


@pytest.fixture
def gpu(monkeypatch):
    """Makes the search believe in a GPU."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])


def test_without_a_gpu_the_default_holds():
    assert micro_batch.find(LARGE, digits.load(), Alone(), precision="float32") is None


@pytest.mark.slow
def test_a_size_that_runs_out_of_memory_does_not_fit(gpu, monkeypatch):
    # The steps really run; beyond 64 images the update then fails as a full GPU does.
    tried = []

    class Small(micro_batch.TrainingStep):
        def __init__(self, *args, plan, **options):
            super().__init__(*args, plan=plan, **options)
            tried.append(plan.micro_batch)
            if plan.micro_batch > 64:
                self.run = self._full

        def _full(self, *args):
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(micro_batch, "TrainingStep", Small)
    assert micro_batch.find(LARGE, digits.load(), Alone(), precision="float32") == 64
    assert set(tried) >= {64, 128}


def test_nothing_that_fits_is_an_error_with_the_smallest_size(gpu, monkeypatch):
    monkeypatch.setattr(micro_batch, "_fits", lambda *_: False)
    with pytest.raises(micro_batch.InputError, match="Received: 8 does not fit"):
        micro_batch.find(LARGE, digits.load(), Alone(), precision="float32")
