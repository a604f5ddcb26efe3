"""The tool that takes pictures: it works where a browser is, and says why where none is."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from test_report import plan, result, row

from tf_largebatch.review.report import write_report

TOOL = Path(__file__).parents[1] / "tools" / "screenshots.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, BROWSERS)), reason=f"no browser is installed: {', '.join(BROWSERS)}"
)


def take(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_no_browser_is_a_reason_and_its_own_status(tmp_path):
    done = take(tmp_path, env=os.environ | {"PATH": str(tmp_path)})
    assert done.returncode == 77
    assert done.stdout.startswith("skipped: no browser is installed")


def test_a_folder_that_is_not_there_is_wrong_input(tmp_path):
    done = take(tmp_path / "none")
    assert done.returncode == 2
    assert "RUN must be a folder" in done.stderr


@needs_browser
def test_a_report_is_taken_on_a_desk_on_a_phone_and_printed(tmp_path):
    write_report(result(row("a long label for a phone", paper=23.74)), [plan()], tmp_path)
    done = take(tmp_path, "--out", tmp_path / "out", "--reports-only")
    assert done.returncode == 0, done.stderr
    assert size(tmp_path / "out" / "report_desk.png")[0] == 1280
    # No wider than the phone: nothing but a table's own box scrolls sideways.
    assert size(tmp_path / "out" / "report_phone.png")[0] == 390
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")


@needs_browser
def test_a_page_that_raises_or_is_too_wide_for_a_phone_fails(tmp_path):
    wide = "<div style='width: 700px'>x</div><script>throw new Error('broken here')</script>"
    (tmp_path / "report.html").write_text(
        f"<!doctype html><meta name='viewport' content='width=device-width'>{wide}"
    )
    done = take(tmp_path, "--out", tmp_path / "out", "--reports-only")
    assert done.returncode == 1
    assert "broken here" in done.stderr
    assert "(phone)" in done.stderr and "px wide where 390 are there" in done.stderr


@needs_browser
def test_tensorboards_pages_are_taken(tmp_path):
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(tmp_path / "run"))
    with writer.as_default():
        for step in range(3):
            tf.summary.scalar("epoch/error_pct", 50.0 - step, step)
        tf.summary.text("config", "the plan", 0)
    writer.close()
    done = take(tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tensorboard_timeseries.png", "tensorboard_scalars.png"} <= names
    assert "tensorboard_text.png" in names and "tensorboard_histograms.png" not in names
    assert size(tmp_path / "out" / "tensorboard_scalars.png") == (1280, 900)
