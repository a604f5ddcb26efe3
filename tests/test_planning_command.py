"""`tf-largebatch plan` of a machine: what it prints, writes and refuses; the page about it."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

from tf_largebatch.planning import step_time

PAGE = (Path(__file__).parent.parent / "docs" / "planning.md").read_text(encoding="utf-8")
MACHINE = ("--devices", "256", "--device", "v100")


def plan(*arguments):
    from tf_largebatch.__main__ import main

    return call(main, ["plan", *arguments])


def test_a_forecast_says_of_every_figure_what_it_is():
    done = plan("--recipe", "goyal_8k", *MACHINE)
    assert done.returncode == 0, done.stderr
    lines = dict(re.findall(r"^(\S[^\n]*?|  with)  +(\S.*)$", done.stdout, flags=re.MULTILINE))
    assert "goyal_8k, batch 8,192, 90 epochs" in lines["nearest published"]
    assert "rate 3.2 = 0.1 x 8192 / 256 (linear)" in done.stdout
    assert "256 devices x 32 micro-batch x 1 accumulation" in lines["split"]
    for name in ("split", "an update", "checkpoint"):
        assert "modelled" in lines[name]
    assert "measured" in lines["input"]
    assert f"{step_time.load_record()['typical_error']:.0%} off" in lines["error"]


def test_the_nearest_row_is_named_for_a_batch():
    done = plan("--batch", "33000", "--devices", "1000", "--device", "tpu-v3")
    assert "32,768" in done.stdout or "33,280" in done.stdout


def test_a_device_of_no_published_system_is_told():
    done = plan("--batch", "4096", "--devices", "64", "--device", "h100")
    assert "no published system has this device" in done.stdout


def test_sweep_writes_a_page_that_needs_no_network(tmp_path):
    law = ("--critical-batch", "4000,3000,5000", "--fitted-to", "8192")
    done = plan("--recipe", "goyal_8k", *MACHINE, *law, "--sweep", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "knee: 128 devices (batch 4,096)" in done.stdout
    page = (tmp_path / "out" / "plan.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "") and page.count("data:image/png") == 3
    with (tmp_path / "out" / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28  # 14 numbers of devices, twice
    marked = {int(r["global_batch"]) for r in rows if r["extrapolated"] == "True"}
    assert marked == {2**i for i in range(14, 19)}


def test_a_run_whose_noise_scale_was_measured_gives_the_critical_batch(tmp_path):
    flags = ("--batch", "4096", *MACHINE, "--critical-batch", str(tmp_path))
    refused = plan(*flags)
    assert refused.returncode == 2 and "--noise-scale" in refused.stderr
    (tmp_path / "diagnostics").mkdir()
    found = tmp_path / "diagnostics" / "noise_scale.json"
    found.write_text('{"measured": {"b_simple": 900.0}}')
    done = plan(*flags)
    text = f"900, noise scale of {tmp_path} (measured): doubling the batch of 4,096 saves 9 % "
    assert f"{text}of the updates and costs 82 % more images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "8", *MACHINE, "--critical-batch", "0"), "--critical-batch must be images"),
        (("--batch", "8", *MACHINE, "--critical-batch", "6,7,8"), "--critical-batch must be"),
        (("--batch", "256", *MACHINE, "--network", "edr/0"), "infiniband-edr"),
        (("--batch", "8", "--devices", "1", "--device", "cpu"), "Measure yours"),
        (("--batch", "8", *MACHINE), "--batch must be a multiple of --devices"),
        (("--batch", "256", *MACHINE, "--network", "0"), "--network must be GB/s above 0"),
        (("--batch", "256", *MACHINE, "--network", "1,x"), "--network must be GB/s above 0"),
        (("--batch", "256", *MACHINE, "--images-per-second", "0"), "--images-per-second"),
        (("--batch", "256", *MACHINE, "--memory", "0.1"), "--memory must hold one image"),
        (("--batch", "8", "--devices", "1", "--device", "v10"), "Nearest: v100"),
        (("--recipe", "goyal_8", *MACHINE), "Nearest: goyal_8k"),
        (("--recipe", "goyal_8k", "--row", "x", *MACHINE), "--row is for a family"),
        (("--batch", "256", "--row", "x", *MACHINE), "--row is for --recipe"),
        (("--batch", "256", *MACHINE, "--out", "x"), "--out is for --sweep"),
        (("--batch", "256", *MACHINE, "--fitted-to", "9"), "--fitted-to is for --critical-batch"),
        (("--recipe", "smith_inception", *MACHINE), "whose operations are known"),
        (MACHINE, "one of the arguments --recipe --batch is required"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message):
    done = plan(*arguments)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_is_written_where_a_forecast_is_refused(tmp_path):
    done = plan("--batch", "8", *MACHINE, "--sweep", "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and not (tmp_path / "out").exists()


def test_a_forecast_loads_no_framework():
    code = (
        "import sys; from tf_largebatch.__main__ import main\n"
        "try: main('plan --batch 8192 --devices 256 --device v100'.split())\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'tensorflow', 'keras', 'numpy', 'matplotlib', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_pages_table_is_the_committed_one():
    record = step_time.load_record()
    assert f"{record['typical_error']:.0%}" in PAGE
    assert f"{record['typical_error_of_a_line']:.0%}" in PAGE
    rows = re.findall(
        r"^\| (\S+) \| (\d+) x (\S+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|", PAGE, re.M
    )
    expected = [
        (r["id"], str(r["devices"]), r["device"], f"{r['global_batch']:,}")
        + (f"{r['published_ms']:.1f}", f"{r['predicted_ms']:.1f}")
        for r in record["left_out"]
    ]
    assert rows == expected


def test_the_pages_blocks_run(capsys):
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, {})
    measured, simulated = capsys.readouterr().out.splitlines()
    assert measured == "32 images an update of 650 weights"
    assert re.match(r"1\.\d\d h, of it waiting for the slowest \d+%", simulated)
