"""`python -m tf_largebatch.diagnose` on a run of the digits, and on what is none."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import make_once, run_recipe

from tf_largebatch.diagnostics import command as diagnose

ROW = [
    *("--set", "epochs=0.5", "--set", "schedule.drop_epochs=0.4", "--set", "reference_rate=1e-9"),
    *("--checkpoint-updates", "20", "--keep-checkpoints", "9"),
]
UPDATES = 80  # half an epoch of 1,280 images, 8 an update


@pytest.fixture
def finished(tmp_path_factory):
    """A run whose rate is so small that its last weights are its first."""

    def make(folder):
        done = run_recipe("goyal_256", *ROW, "--run-dir", folder / "run")
        assert done.returncode == 0, done.stderr

    return make_once(tmp_path_factory, "diagnosed", make) / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy, to be written to."""
    return shutil.copytree(finished, tmp_path / "run")


def call(capfd, *arguments):
    with pytest.raises(SystemExit) as done:
        diagnose.main([str(a) for a in arguments])
    captured = capfd.readouterr()
    return done.value.code, captured.out, captured.err


def measured(run, name):
    return json.loads((run / "diagnostics" / f"{name}.json").read_text())["measured"]


def test_a_run_gets_its_instruments_files_events_and_page(run, capfd):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code, out, _ = call(
        capfd,
        *(run, "--noise-scale", "--layers", "--drift", "--landscape", "--points", 5),
        *("--hessian", "--eigenvalues", 1, "--products", 3, "--interpolate", run),
        *("--images", 96, "--noise-batch", 8, "--micro-batch", 48),
    )
    assert code == 0
    assert "noise scale" in out and "96 training images" in out
    folder = run / "diagnostics"
    names = ["noise_scale", "layers", "drift", "landscape_1d", "landscape_2d", "interpolation"]
    for name in [*names, "hessian"]:
        for suffix in (".json", ".npz", ".png"):
            assert (folder / (name + suffix)).stat().st_size > 100
    assert not list(folder.glob("*.part"))
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64") == 7

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"noise/grad_sq", "hessian/largest", "drift/distance", "landscape_2d"} <= tags
    assert events.Tensors("drift/distance")[0].step == UPDATES

    # The rate was 1e-9: what the seed makes again is what the run had, to the last checkpoint.
    drift = measured(run, "drift")
    assert drift["updates"] == [20, 40, 60, 80]
    assert max(drift["distances"]) < 1e-4
    first, last = (measured(run, "layers")[k] for k in ("first", "last"))
    # All of them: with scales of 1 every kernel has a gradient.
    kernels = [(a, b) for a, b in zip(first, last, strict=True) if a["ratio"] and a["rank"] > 1]
    assert len(kernels) == 10
    for a, b in kernels:
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
    # Both ends of the line are the same model: the loss is the same all along it.
    line = np.load(folder / "interpolation.npz")
    for name in ("statistics_interpolated", "statistics_recomputed"):
        np.testing.assert_allclose(line[name], line[name][0], rtol=1e-5)
    # The middle of either plot is the solution itself.
    middle = np.load(folder / "landscape_1d.npz")["loss"][2]
    assert np.load(folder / "landscape_2d.npz")["loss"][1, 1] == pytest.approx(middle, rel=1e-6)
    assert line["statistics_interpolated"][0] == pytest.approx(middle, rel=1e-6)


def test_the_loss_is_that_of_the_exported_model_on_the_plain_digits(run, capfd):
    import keras

    from tf_largebatch.data import digits

    call(capfd, run, "--landscape", "--points", 3)
    model = keras.saving.load_model(run / "model.keras")
    images, labels = digits.load()._train
    logits = model.predict(images, verbose=0).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(1280), np.asarray(labels)]
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)
    kept = np.load(run / "diagnostics" / "landscape_1d.npz")["loss"][1]
    assert kept == pytest.approx(loss, rel=1e-5)


def test_the_runs_report_shows_the_instruments_and_names_them_once(run, capfd):
    code, out, _ = call(capfd, run, "--noise-scale", "--images", 64)
    assert code == 0
    assert f"page: {run / 'report.html'}" in out
    page = (run / "report.html").read_text()
    assert page.count("gradient noise scale (McCandlish et al. 2018)</h4>") == 1
    # The curves, the rates and the instrument's figure.
    assert page.count("data:image/png;base64") == 3
    assert "noise_scale" in (run / "instruments.csv").read_text()


def test_too_little_memory_is_one_line_before_anything_is_measured(run, capfd, monkeypatch):
    from tf_largebatch.diagnostics import requirements

    monkeypatch.setattr(requirements, "available_bytes", lambda: 10_000_000)
    code, out, err = call(capfd, run, "--hessian", "--images", 64)
    assert (code, out) == (2, "")
    assert "--hessian needs about" in err and "hessian ..." not in err
    assert not (run / "diagnostics").exists()


def test_an_earlier_measurement_stays_on_the_page(run, capfd):
    call(capfd, run, "--noise-scale", "--images", 64)
    call(capfd, run, "--layers", "--images", 64)
    page = (run / "diagnostics" / "report.html").read_text()
    assert "noise scale" in page and "by layer" in page


def test_what_is_measured_stays_when_a_later_instrument_is_stopped(run, capfd, monkeypatch):
    from tf_largebatch.diagnostics import measurements

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(measurements, "measure_hessian", killed)
    code, _, _ = call(capfd, run, "--noise-scale", "--hessian", "--images", 64)
    assert code == 130
    assert measured(run, "noise_scale")["examples"] == 64
    assert "noise scale" in (run / "diagnostics" / "report.html").read_text()
    assert not (run / "diagnostics" / "hessian.json").exists()


def test_a_model_with_weights_that_are_no_numbers_ends_with_status_3_and_no_zero(run, capfd):
    import keras

    model = keras.saving.load_model(run / "model.keras")
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    model.save(run / "model.keras")
    code, _, err = call(capfd, run, "--sharpness", "--images", 64)
    assert code == 3
    assert "the loss at the weights themselves is nan" in err
    code, out, _ = call(capfd, run, "--landscape", "--points", 3, "--images", 64)
    assert code == 0
    assert "no loss of 3 is finite" in out
    assert np.isnan(np.load(run / "diagnostics" / "landscape_1d.npz")["loss"]).all()
    code, out, _ = call(capfd, run, "--noise-scale", "--images", 64)
    assert "B_simple could not be told" in out


def remove_model(run):
    (run / "model.keras").unlink()


def remove_plan(run):
    (run / "plan.json").unlink()


def damage_plan(run):
    (run / "plan.json").write_text("{}")


def damage_model(run):
    (run / "model.keras").write_bytes(b"no archive")


def remove_seed(run):
    (run / "seed.json").unlink()


def other_network(run):
    import keras

    inputs = keras.Input([8, 8, 3])
    keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))).save(
        run / "model.keras"
    )


def imagenet(run):
    plan = json.loads((run / "plan.json").read_text())
    plan["recipe"]["data"] = {"name": "imagenet2012"}
    (run / "plan.json").write_text(json.dumps(plan))


def two_runs(run):
    for label in ("a", "b"):
        place = run.parent / "table" / label / "seed-0"
        place.mkdir(parents=True)
        shutil.copy(run / "plan.json", place)
    shutil.rmtree(run)
    shutil.move(run.parent / "table", run)


def one_row(run):
    """Leaves two seeds of one row."""
    for seed in ("seed-0", "seed-1"):
        place = run.parent / "row" / seed
        place.mkdir(parents=True)
        shutil.copy(run / "plan.json", place)
    shutil.rmtree(run)
    shutil.move(run.parent / "row", run)


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (one_row, [], "holds 2. Choose one: seed-0, seed-1"),
        (shutil.rmtree, [], "RUN must be a folder that can be read"),
        (remove_plan, [], "which has no plan.json"),
        (remove_model, [], "model.keras. Received: .* Continue the run to its end"),
        (damage_plan, [], "plan.json is damaged or of another version"),
        (damage_model, [], "model.keras cannot be read"),
        (other_network, [], "a model for 8x8x3, images of 8x8x1"),
        (imagenet, [], "--data must name a folder"),
        (two_runs, [], "holds 2. Choose one: a/seed-0, b/seed-0"),
        (remove_seed, ["--drift"], "its first weights are not known"),
        (lambda run: None, ["--images", 2000], "--images must be at most 1,280"),
        (lambda run: None, ["--images", 16], "two micro-batches or more. Received: 16 images, 16"),
        (lambda run: None, ["--interpolate", "nowhere"], "Received: nowhere"),
        (lambda run: None, ["--products", 2], "--products must be at least --eigenvalues"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(run, capfd, change, flags, message):
    change(run)
    code, out, err = call(capfd, run, *flags)
    assert (code, out) == (2, "")
    said = [line for line in err.splitlines() if not line.endswith(" ...")]
    assert len(said) == 1
    assert re.search(message, said[0])
    assert not (run / "diagnostics").exists()


def test_help_imports_no_framework():
    import subprocess
    import sys

    code = (
        "import sys; from tf_largebatch.diagnostics import command;"
        "command.make_parser().format_help();"
        "print(sorted(set(sys.modules) & {'tensorflow', 'keras', 'numpy', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_on_diagnostics_names_flags_that_exist_and_code_that_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    known = diagnose.make_parser().format_help()
    table = re.findall(r"^\| `(--[a-z-]+)`", text, flags=re.MULTILINE)
    assert {f"--{name.replace('_', '-')}" for name in diagnose.INSTRUMENTS} <= set(table)
    assert all(flag in known for flag in table)
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(code, "docs/diagnostics.md", "exec"), {})
    out = capsys.readouterr().out
    # 40 / 3 = 13.3 (see the first test of the noise scale)
    assert "measured B_simple 13 after 1 updates" in out
    assert "critical batch" in out and "maximal data parallelism" in out
