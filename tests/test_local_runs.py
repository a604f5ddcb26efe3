"""Runs with local updates on workers that are killed, and flags that do not fit them."""

import os
import signal

import numpy as np
import pytest
from commands import curve, run_recipe
from test_failures import LAUNCH, MODULE, SETTINGS, checkpoints, end, start, wait_for, weights
from test_failures import worker_processes as workers_of

LOCAL = ["--set=local.workers=2", "--set=local.local_steps=16", "--set=local.start_epoch=0.5"]
RUN = [s for s in SETTINGS if not s.startswith("--checkpoint")] + LOCAL


@pytest.mark.slow
def test_a_killed_worker_is_restarted_at_an_average_and_ends_as_one_process_does(tmp_path):
    folder = tmp_path / "run"
    run = ["-m", MODULE, "--run-dir", folder, *RUN, "--checkpoint-updates=16"]
    launcher = start("-m", "tf_largebatch.launch", *LAUNCH, "--restarts", "1", "--", *run)
    try:
        # 40 updates an epoch: those of epochs 1 and 2 end between two averages.
        wait_for(lambda: any("ckpt-48" in p.name for p in checkpoints(folder)))
        os.kill(workers_of(launcher)[1], signal.SIGKILL)
    finally:
        status, text = end(launcher, timeout=400)
    assert status == 0, text
    alone = run_recipe("goyal_256", "--run-dir", tmp_path / "alone", *RUN, "--keep-checkpoints=9")
    assert alone.returncode == 0, alone.stderr
    # Epochs end with updates 40, 80 and 120: the first between two averages.
    written = {path.stem for path in checkpoints(tmp_path / "alone")}
    assert written == {"ckpt-48", "ckpt-80", "ckpt-120"}
    for a, b in zip(weights(tmp_path / "alone"), weights(folder), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(curve(tmp_path / "alone"), curve(folder), strict=True):
        assert (a["update"], a["bytes_sent"]) == (b["update"], b["bytes_sent"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
    in_step, local = curve(folder)[0]["bytes_sent"] / 20, curve(folder)[2]["bytes_sent"] / 40
    assert local < in_step / 10  # with the average that an evaluation shows


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
