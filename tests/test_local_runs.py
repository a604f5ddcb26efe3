"""Runs with local updates on workers that are killed, and flags that do not fit them."""

import os
import signal

import numpy as np
import pytest
from commands import curve, run_recipe
from test_failures import LAUNCH, MODULE, SETTINGS, checkpoints, end, start, wait_for, weights
from test_failures import worker_processes as workers_of

LOCAL = ["--set=local.workers=2", "--set=local.local_steps=16", "--set=local.start_epoch=0.5"]
OTHER = ("--checkpoint-updates=15", "--set=epochs=3", "--set=schedule.drop_epochs=2")
RUN = [s for s in SETTINGS if s not in OTHER] + LOCAL
RUN += ["--set=epochs=2", "--set=schedule.drop_epochs=1"]


@pytest.mark.slow
def test_a_killed_worker_is_restarted_at_an_average_and_the_result_is_the_same_bit_for_bit(
    tmp_path,
):
    folder, undisturbed = tmp_path / "run", tmp_path / "undisturbed"

    def launch(folder, *flags):
        run = ["-m", MODULE, "--run-dir", folder, *RUN, *flags]
        return start("-m", "tf_largebatch.launch", *LAUNCH, "--restarts", "1", "--", *run)

    launcher = launch(folder, "--checkpoint-updates=16")
    try:
        wait_for(lambda: any("ckpt-32" in p.name for p in checkpoints(folder)), seconds=300)
        os.kill(workers_of(launcher)[1], signal.SIGKILL)
    finally:
        status, text = end(launcher, timeout=400)
    assert status == 0, text
    status, text = end(launch(undisturbed, "--keep-checkpoints=9"), timeout=400)
    assert status == 0, text
    # Epochs end with updates 40 and 80: the first between two averages.
    assert {path.stem for path in checkpoints(undisturbed)} == {"ckpt-48", "ckpt-80"}
    assert curve(folder) == curve(undisturbed)
    for a, b in zip(weights(folder), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--set=local.local_steps=0"], "`local.local_steps` must be a whole number of at least 1"),
        (["--set=local.local_steps=4"], "`local.workers` must be at least 2 with local_steps"),
        (
            [*LOCAL, "--set=local.workers=5"],
            "`local.workers` must be such that each has a",
        ),
        ([*LOCAL, "--replicas=4"], "`local.workers` must be a multiple of the replicas"),
        ([*LOCAL, "--set=local.start_epoch=99"], "`local.start_epoch` must be at most"),
        ([*LOCAL, "--checkpoint-updates=15"], "--checkpoint-updates must be a multiple of the 16"),
        ([*LOCAL, "--precision=float16"], "--precision must not be float16"),
        ([*LOCAL, "--wire=bfloat16"], "--wire"),
        ([*LOCAL, "--set=growth=1:64"], "`local.local_steps` must be 1 with growth"),
        ([*LOCAL, "--set=local.slots=mixed"], "must be one of kept, averaged, reset"),
    ],
)
def test_flags_that_do_not_fit_are_one_line_before_training(tmp_path, flags, says):
    done = run_recipe("goyal_256", "--run-dir", tmp_path / "run", *SETTINGS[:-1], *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert says in line
    assert not (tmp_path / "run").exists()
