"""Sixty seeded injections of `tools/chaos.py`; its faults of files; its record."""

import json
import os
import random
import subprocess
import sys

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "tools"))

from chaos_faults import FAULTS, harm, shown

RECORD = json.loads((ROOT / "tools" / "records" / "chaos.json").read_text())


@pytest.mark.slow
def test_sixty_injections_change_no_result(tmp_path):
    out = tmp_path / "chaos.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "chaos.py", "--injections=60", "--seed=1", "--out", out],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    record = json.loads(out.read_text())
    assert record["injections"] >= 60
    assert record["failures"] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_harmed_file_is_another_one(fault, tmp_path):
    head, line = "epoch,seconds,unread,validation_unread", "1,2.5,0,0"
    path, other = tmp_path / "metrics.csv", tmp_path / "other.csv"
    path.write_text(f"{head}\n{line}\n")
    other.write_text(f"{head}\n1,9.5,0,0\n")
    before = path.read_bytes()
    assert harm(path, fault, random.Random(0), other)
    assert fault == "missing" or path.read_bytes() != before
    assert path.exists() == (fault != "missing")


def test_names_of_files_leave_out_what_differs_from_run_to_run():
    assert shown("checkpoints/ckpt-33.data-00000-of-00001") == (
        "checkpoints/ckpt-N.data-00000-of-00001"
    )
    assert shown("train/events.out.tfevents.17.vm.1.0.v2") == "train/events"


def test_the_record_counts_every_injection_and_lists_every_failure():
    ways = [way for kind in RECORD["kinds"].values() for way in kind.items()]
    assert sum(count for _, count in ways) == RECORD["injections"]
    assert sum(count for way, count in ways if way == "failed") == len(RECORD["failures"])
    assert all(failure.keys() == {"kind", "what", "answer"} for failure in RECORD["failures"])
