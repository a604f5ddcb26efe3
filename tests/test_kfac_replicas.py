"""K-FAC's matrices are inverted by one replica each; workers that are killed lose nothing."""

import os
import signal

import keras
import kfac_split
import numpy as np
import pytest
import tensorflow as tf
from commands import ROOT, curve
from test_failures import checkpoints, end, start, wait_for, weights, worker_processes
from workers import run_workers

from tf_largebatch import KFAC
from tf_largebatch.optimizers import kronecker
from tf_largebatch.training.layer_statistics import LayerStatistics

LAUNCH = ["--workers", "2", "--start-timeout", "200", "--run-timeout", "900", "--grace", "10"]
# A run of the digits with K-FAC: batch norm, convolutions and a dense layer; 40 updates.
RUN = """
from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, osawa_kfac
from tf_largebatch.records.recipe import Miniature, Row, StepsSpec
from tf_largebatch.training.command import main

kfac = replace(osawa_kfac.KFAC_4K.optimizer, momentum=0.9, refresh_updates=7, statistics_decay=0.5)
RECIPE = goyal_8k.small(
    goyal_8k.RECIPE,
    rate=0.002,
    batch=32,
    reference_batch=32,
    epochs=1,
    optimizer=kfac,
    schedule=StepsSpec(drop_epochs=(0.5,), drop_factor=0.1),
)
main(RECIPE, Miniature(contrast="K-FAC", rows=(Row("kfac", "K-FAC", RECIPE),)))
"""


def two_devices(first_key):
    """Strategies of one process number their collectives alike, and mix where shapes differ."""
    own = type("OwnCollectives", (tf.distribute.MirroredStrategy,), {})
    own._collective_key_base = first_key
    return own(["CPU:0", "CPU:1"])


def test_layers_are_shared_out_the_dearest_first():
    # 5^3 = 125 to the first, 4^3 = 64 to the second, 3 matrices of 3^3 = 27 to it too, then 2^3 to
    # the first, who has 125 where the other has 64 + 81 = 145.
    sizes = [[(2, 2)], [(4, 4)], [(3, 3, 3)], [(5, 5)]]
    assert kronecker.share_out(sizes, 2) == [0, 1, 1, 0]
    assert kronecker.share_out(sizes, 1) == [0] * 4
    assert set(kronecker.share_out(sizes, 9)) == {0, 1, 2, 3}


def test_statistics_and_inverses_are_counted_where_they_are_sent():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    found = LayerStatistics(model, KFAC(0.1, refresh_updates=3))
    # A of 5 x 5 and G of 3 x 3, and their inverses; refreshes at 3 and 6 of the updates 1 to 6.
    assert found.bytes_sent(1, 7) == 2 * (25 + 9) * (4 + 4)
    assert found.bytes_sent(1, 7, "bfloat16") == 2 * (25 + 9) * (2 + 4)
    assert found.bytes_sent(1, 3) == 0


def check(shared, alone):
    """Each layer's factors are inverted once, by all replicas together, to the same weights."""
    sizes = [[19, 3], [27, 4], [5, 4]]  # inputs and the bias's 1, outputs
    assert sorted(s for _, s in shared["inverted"]) == sorted(sizes)
    assert {replica for replica, _ in shared["inverted"]} == {0, 1}
    assert len(alone["inverted"]) == 2 * len(sizes)
    for got, want in zip(shared["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_two_devices_that_share_the_inverses_out_end_as_two_that_invert_all():
    shared = kfac_split.train(strategy=two_devices(3_000))
    check(shared, kfac_split.train(strategy=two_devices(4_000), alone=True))


@pytest.mark.slow
def test_two_workers_that_share_the_inverses_out_end_as_two_that_invert_all():
    shared, alone = (run_workers(kfac_split.train, 2, alone=a) for a in (False, True))
    both = {"weights": shared[0]["weights"], "inverted": [i for w in shared for i in w["inverted"]]}
    every = {"weights": alone[0]["weights"], "inverted": [i for w in alone for i in w["inverted"]]}
    check(both, every)
    whole = kfac_split.train()
    for other in (shared[1], whole):
        for got, want in zip(shared[0]["weights"], other["weights"], strict=True):
            np.testing.assert_allclose(got, want, atol=2e-5)  # float32 sums in another order


@pytest.mark.slow
def test_a_killed_worker_is_restarted_and_the_result_is_the_same_bit_for_bit(tmp_path):
    (tmp_path / "kfac_run.py").write_text(RUN)
    folder, undisturbed = tmp_path / "run", tmp_path / "undisturbed"

    def launch(folder):
        run = ["-m", "kfac_run", "--run-dir", folder, "--seed=5", "--checkpoint-updates=15"]
        paths = os.pathsep.join([str(tmp_path), str(ROOT)])
        command = ["-m", "tf_largebatch.launch", *LAUNCH, "--restarts", "1", "--", *run]
        return start(*command, environment={"PYTHONPATH": paths})

    launcher = launch(folder)
    try:
        # Update 15 lies between the refreshes 14 and 21: stale inverses must be in the checkpoint.
        wait_for(lambda: checkpoints(folder), seconds=400)
        os.kill(worker_processes(launcher)[1], signal.SIGKILL)
    finally:
        status, text = end(launcher, timeout=900)
    assert status == 0, text
    assert "restart 1 of 1" in text
    status, text = end(launch(undisturbed), timeout=900)
    assert status == 0, text
    assert curve(folder) == curve(undisturbed)
    for a, b in zip(weights(folder), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(a, b)
