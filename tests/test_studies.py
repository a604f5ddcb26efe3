"""The machinery of the studies: trials that survive a kill, the split, searches, record, page."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_study
import numpy as np
import pytest
from commands import NO_TENSORFLOW, call
from fake_study import PLACE, SCALE, STUDY

from tf_largebatch.__main__ import load_studies
from tf_largebatch.records.errors import InputError
from tf_largebatch.review.verdict import CANNOT_TELL
from tf_largebatch.studies import command, page, runner
from tf_largebatch.studies.sets import HELD_OUT, Sets, TuningReadsTestError
from tf_largebatch.studies.study import Scale, Trial, answer
from tf_largebatch.studies.tuning import grid, search_points, search_rates

TESTS = Path(__file__).parent
# A process that runs the study of arithmetic in the folder that it is given.
PROCESS = (
    "import sys; from pathlib import Path; from tf_largebatch.studies import fitting, runner;"
    "from fake_study import PLACE, SCALE, STUDY; fitting.place = lambda: PLACE;"
    "runner.run(STUDY, Path(sys.argv[1]), SCALE, None, shown=False)"
)


@pytest.fixture(autouse=True)
def no_framework(monkeypatch):
    """Where a trial ran costs the import of a framework, and is not what is tested here."""
    monkeypatch.setattr("tf_largebatch.studies.fitting.place", lambda: PLACE)


def start(folder, pause=0.0):
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        fake_study.PAUSE: str(pause),
    }
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(folder)], env=environment)


def finish(folder):
    runner.run(STUDY, folder, SCALE, None, shown=False)
    return record_of(folder)


def record_of(folder):
    """The record but for what it cost."""
    record = page.write(STUDY, folder, SCALE)
    return {key: value for key, value in record.items() if key != "cost"}


def trial_files(folder):
    return sorted(path for path in (folder / "trials").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_largebatch.studies.fitting.place", lambda: PLACE)
        return folder, finish(folder)


def test_a_study_ends_with_a_verdict_from_the_best_rates(whole):
    folder, record = whole
    assert [claim["verdict"] for claim in record["claims"]] == ["agrees"]
    finding = record["claims"][0]["answers"][0]["finding"]
    assert finding["differences"] == pytest.approx([2.0, 2.1, 2.2, 2.3, 2.4])
    assert record["missing"] == 0 and record["trials"] == len(trial_files(folder)) == 26
    text = (folder / "README.md").read_text()
    # The rule stands before the result.
    assert text.index("Rule: twice - once: agrees where") < text.index("+2.20 points")


@pytest.mark.slow
def test_a_study_killed_ten_times_at_random_has_the_same_record(tmp_path, whole):
    draw = random.Random(0)
    for _ in range(10):
        process = start(tmp_path, pause=0.15)
        time.sleep(draw.uniform(0.3, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(trial_files(tmp_path)) > 2  # the kills came while it worked
    assert finish(tmp_path) == whole[1]
    runner.clean(tmp_path)
    assert {path.suffix for path in trial_files(tmp_path)} == {".json"}


def test_a_study_that_stopped_anywhere_goes_on_with_what_is_missing(tmp_path, whole, monkeypatch):
    finish(tmp_path)
    gone = random.Random(1).sample(trial_files(tmp_path), 9)
    for path in gone:
        path.unlink()
    ran = []
    monkeypatch.setattr(fake_study, "run", None)

    def run(settings, sets):
        ran.append(settings)
        return fake_study_run(settings, sets)

    study = replaced(run=run)
    runner.run(study, tmp_path, SCALE, None, shown=False)
    assert len(ran) == 9
    assert record_of(tmp_path) == whole[1]


fake_study_run = fake_study.run


def replaced(**changes):
    return dataclasses.replace(STUDY, **changes)


def test_two_processes_share_the_trials_and_run_none_twice(tmp_path, whole):
    processes = [start(tmp_path, pause=0.05) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert record_of(tmp_path) == whole[1]
    paths = trial_files(tmp_path)
    assert {path.suffix for path in paths} == {".json"}  # and no lock is left
    seconds = [json.loads(path.read_text())["seconds"] for path in paths]
    assert len(seconds) == 26 and min(seconds) >= 0.05


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path):
    trials = runner.Trials(STUDY, tmp_path)
    other = runner.Trials(STUDY, tmp_path)
    trial = STUDY.plan({}, SCALE)[0]
    with trials.claim(trial) as mine, other.claim(trial) as its:
        assert (mine, its) == (True, False)
        lock = trials.path(trial).with_suffix(".lock")
        assert lock.read_text() == f"{os.getpid()}\n"
    assert not lock.exists()
    lock.write_text("99999\n")  # of a process that was killed: nobody holds it
    with other.claim(trial) as mine:
        assert mine


def test_a_damaged_trial_is_named_once_and_run_again(tmp_path, whole, capsys):
    finish(tmp_path)
    path = tmp_path / "trials" / "final" / "once-s0.json"
    good = json.loads(path.read_text())
    path.write_text(path.read_text()[:50])
    assert finish(tmp_path) == whole[1]
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{path} is damaged" in errors and "run again" in errors
    assert json.loads(path.read_text())["result"] == good["result"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "0" * 16}, "is of another version of the design, 0000000000000000"),
        ({"settings": {"stage": "final"}}, "has other settings than the plan"),
        ({"result": None, "seconds": None}, "is damaged"),
    ],
)
def test_a_trial_of_another_design_does_not_count(tmp_path, whole, capsys, change, says):
    finish(tmp_path)
    path = tmp_path / "trials" / "final" / "twice-s3.json"
    data = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    record = record_of(tmp_path)  # a report runs nothing
    assert record["missing"] == 1 and record["claims"][0]["verdict"] == CANNOT_TELL
    assert says in capsys.readouterr().err
    assert finish(tmp_path) == whole[1]


def test_fewer_seeds_than_the_rule_needs_and_a_quick_look_cannot_tell(tmp_path):
    runner.run(STUDY, tmp_path, Scale(4), None, shown=False)
    record = page.write(STUDY, tmp_path, Scale(4))
    assert record["claims"][0]["verdict"] == CANNOT_TELL
    assert answer(fake_study.CLAIM, [2.0] * 5, Scale(5)).verdict == "agrees"
    assert answer(fake_study.CLAIM, [2.0] * 5, Scale(5, quick=True)).verdict == CANNOT_TELL
    lone = answer(fake_study.CLAIM, [2.0], Scale(1))
    assert (lone.verdict, lone.finding) == (CANNOT_TELL, None)


def test_a_quick_look_says_so_on_page_and_screen(tmp_path):
    scale = Scale(2, quick=True)
    runner.run(STUDY, tmp_path, scale, None, shown=False)
    record = page.write(STUDY, tmp_path, scale)
    assert page.QUICK in (tmp_path / "README.md").read_text()
    assert command.say(record, tmp_path)[0] == page.QUICK


def test_numbers_that_are_not_finite_are_kept_as_nothing(tmp_path):
    trial = STUDY.plan({}, SCALE)[0]
    trials = runner.Trials(STUDY, tmp_path)
    trials.path(trial).parent.mkdir(parents=True)
    trials.write(trial, {"a": float("nan"), "b": np.float32(0.5), "c": [np.inf, 1]}, 1.0)
    text = trials.path(trial).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["result"] == {
        "a": None,
        "b": 0.5,
        "c": [None, 1],
    }


# The data.


def write_digits(folder):
    """The digits of scikit-learn as MNIST's files have them: 28 x 28, IDX."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.kron(bunch.images, np.ones((3, 3))).astype(np.uint8) * 15
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    labels = bunch.target.astype(np.uint8)
    folder.mkdir(parents=True)
    for part, span in (("train", slice(0, 1_500)), ("t10k", slice(1_500, None))):
        for kind, array in (("images-idx3", images[span]), ("labels-idx1", labels[span])):
            sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(content)


def write_coloured_digits(folder):
    """The same in the form of CIFAR-10: 32 x 32, three channels, an .npz."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.kron(bunch.images, np.ones((4, 4))).astype(np.uint8)[..., None] * [15, 10, 5]
    parts = {"x_train": images[:1_500], "x_test": images[1_500:]}
    labels = {"y_train": bunch.target[:1_500], "y_test": bunch.target[1_500:]}
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **{k: v.astype(np.uint8) for k, v in parts.items()}, **labels)


def write_colours(folder):
    """Noise with a hue for each class, as CIFAR-10's binary batches have it."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for batch in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        labels = rng.integers(0, 10, 300)
        hues = np.random.default_rng(1).integers(60, 196, (10, 3, 1))[labels]
        images = np.clip(hues + rng.normal(0, 40, (300, 3, 1_024)), 0, 255)
        rows = np.concatenate([labels[:, None], images.reshape(300, -1)], axis=1)
        (folder / f"{batch}.bin").write_bytes(rows.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("mnist", "fashion_mnist"):
        write_digits(folder / name)
    write_coloured_digits(folder / "cifar10")
    return folder


def test_a_trial_that_tunes_cannot_reach_the_test_set(data):
    sets = Sets(data)
    split = sets.load("mnist", "tune")
    for name in ("test", "all_train"):
        with pytest.raises(TuningReadsTestError, match="stage 'tune' asked for"):
            getattr(split, name)
    final = sets.load("mnist", "final")
    assert len(final.test[0]) == 297 and len(final.all_train[0]) == 1_500


def test_the_held_out_part_is_fixed_apart_from_training_and_from_the_test_set(data):
    split = Sets(data).load("mnist", "final")
    again = Sets(data).load("mnist", "final")
    assert len(split.train[0]) == 1_350 and len(split.held_out[0]) == 150
    assert HELD_OUT == 5_000  # of 60,000
    np.testing.assert_array_equal(split.held_out[0], again.held_out[0])
    # Every example of the training set is in one of the two, and in one only.
    parts = np.concatenate([split.train[0], split.held_out[0]]).reshape(1_500, -1)
    from tf_largebatch.data.small_image_files import read

    whole = read("mnist", data / "mnist")[0][0].reshape(1_500, -1)
    assert sorted(map(bytes, parts)) == sorted(map(bytes, whole))


def test_no_study_reads_the_test_set_while_it_tunes(data):
    """Whatever a study does in a trial that tunes, the sets refuse: all ask by their stage."""
    source = [path.read_text() for path in Path(runner.__file__).parent.glob("*.py")]
    assert not any('load(settings["data"], FINAL)' in text for text in source)
    assert not any("small_image_files" in text for text in source if "class Sets" not in text)


def test_data_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(InputError, match="must hold a folder mnist. Received: .* download them"):
        Sets(tmp_path).check(["mnist"])
    Sets(None).check(["mnist"])
    Sets(tmp_path).check(["digits"])


# Searches.


def make_trial(rate, seed):
    return Trial(f"r{rate:g}-s{seed}", {"rate": rate, "seed": seed, "stage": "tune"})


def searched(error, rates=(1.0, 2.0, 4.0), **options):
    """A search to its end: the result, and the trials in the order of their asking."""
    results, asked = {}, []
    while True:
        search = search_rates("row", rates, results, make_trial, **options)
        if not search.missing:
            return search, asked
        for trial in search.missing:
            asked.append(trial.name)
            value = error(trial.settings["rate"], trial.settings["seed"])
            results[trial.name] = {"held_out_error_pct": value}


def test_a_search_takes_the_least_mean_and_asks_for_each_trial_once():
    search, asked = searched(lambda rate, seed: abs(rate - 2) + 0.1 * seed)
    assert (search.best, search.at_edge) == (2.0, False)
    assert asked == [f"r{r}-s{s}" for r in (1, 2, 4) for s in (0, 1)]


@pytest.mark.parametrize(
    ("best", "rates", "edge"),
    [(16.0, (1, 2, 4, 8, 16, 32), False), (0.125, (0.125, 0.25, 0.5, 1, 2, 4), True)],
)
def test_a_search_widens_where_the_best_lies_on_an_end(best, rates, edge):
    search, _ = searched(lambda rate, seed: abs(np.log2(rate / best)))
    assert search.best == best and search.at_edge == edge
    assert [rate for rate, _, _ in search.points] == list(rates)


def test_a_search_widens_three_times_at_most_at_each_end():
    search, _ = searched(lambda rate, seed: rate)
    assert [rate for rate, _, _ in search.points] == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4]
    assert search.at_edge


def test_a_trial_that_diverged_counts_as_guessing():
    search, _ = searched(lambda rate, seed: None if rate > 1 and seed else 40.0 * rate)
    assert search.best == 0.125
    means = {rate: mean for rate, _, mean in search.points}
    assert means[2.0] == (80 + 90) / 2


def test_points_are_even_in_the_logarithm_and_the_first_of_more():
    space = {"rate": (0.002, 1.0), "one_minus_momentum": (0.03, 1.0)}
    points = search_points(space, 24, seed=3)
    assert points[:8] == search_points(space, 8, seed=3)
    rates = np.array([p["rate"] for p in points])
    assert 10 <= np.sum(rates < np.sqrt(0.002)) <= 14
    assert grid(0.5, 3) == (0.5, 1.0, 2.0)


# The pages.


def test_the_claims_on_the_pages_are_those_of_the_records():
    script = TESTS.parent / "tools" / "render_claims.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_claims_has_each_by_number_run_or_not(whole):
    claim = fake_study.CLAIM
    other = replaced(name="other", claims=[dataclasses.replace(claim, id="C10", text="|x|")])
    third = replaced(name="third", claims=[dataclasses.replace(claim, id="C2")])
    record = page.write(STUDY, whole[0], SCALE)
    studies = {"other": other, "fake": STUDY, "third": third}
    lines = page.claims_table(studies, {"fake": record}, links="claims/")
    assert [line.split(":")[0] for line in lines[2:]] == ["| C0", "| C2", "| C10"]
    ours = "+2.20 points [2.02, 2.38], n = 5 | 5 | **agrees** | [fake](claims/fake/README.md)"
    assert ours in lines[2]
    assert "| – | 0 | **not run** | `study third` |" in lines[3]
    assert r"C10: \|x\|" in lines[4]


def test_readmes_table_has_the_claims_with_a_verdict_in_short(whole):
    record = page.write(STUDY, whole[0], SCALE)
    lines = page.verdicts_table({"fake": STUDY}, {"fake": record}, links="claims/")
    numbers = "+2.20 points [2.02, 2.38], n = 5"
    assert lines[2:] == [
        f"| C0: {fake_study.CLAIM.text} | {fake_study.CLAIM.paper.partition(', arXiv')[0]} | "
        f"{numbers} | **[agrees](claims/fake/README.md)** |"
    ]
    open_claim = {**record, "claims": [{**record["claims"][0], "verdict": "cannot tell"}]}
    assert len(page.verdicts_table({"fake": STUDY}, {"fake": open_claim}, links="")) == 2


# The command.


def ended(*argv, studies=None):
    with pytest.raises(SystemExit) as end:
        command.main(lambda: studies or {"fake": STUDY}, [str(a) for a in argv])
    return end.value.code


def test_the_command_reports_what_there_is(tmp_path, whole, capsys):
    assert ended("fake", "--report", "--out", whole[0]) == 0
    out = capsys.readouterr().out
    assert "C0: agrees: Twice is more." in out and "+2.20 points" in out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["fake", "--report", "--out", "nowhere"], "--report needs a folder with trials/"),
        (["fakes"], "Nearest: fake"),
        (["fake", "--seeds", "0"], "whole number in 1..100. Received: 0"),
        (["fake", "--workers", "0"], "Received: 0"),
    ],
)
def test_wrong_input_is_one_line(argv, says, capsys):
    assert ended(*argv) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_backend_that_a_study_cannot_use_is_one_line():
    with pytest.raises(InputError, match="KERAS_BACKEND must be jax for fake. Received"):
        runner.check_backend(replaced(backends=("jax",), name="fake"))


@pytest.mark.slow
def test_workers_share_the_trials_and_end_with_the_command(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tf_largebatch.studies import command;"
        "from fake_study import SCALE, STUDY; command.prepare();"
        "command.work(STUDY, Path(sys.argv[1]), SCALE, None, 2)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        "KERAS_BACKEND": "jax",
        fake_study.PAUSE: "0.5",
    }
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.rglob("*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(2)
    left = len(list(tmp_path.rglob("*.json")))
    time.sleep(3)
    assert 4 <= left == len(list(tmp_path.rglob("*.json"))) < 26


def test_a_folder_for_a_study_without_one_is_refused(tmp_path):
    done = call(command.main, load_studies, ["warmup", "--quick", "--data", str(tmp_path)])
    assert done.returncode == 2
    assert "--data is for studies of other pictures" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", load_studies())
def test_a_quick_look_at_every_study(name, data, tmp_path):
    """Where it can on the JAX backend without TensorFlow, as on a machine that has only that."""
    backend = load_studies()[name].backends[0]
    if backend == "jax":
        (tmp_path / "sitecustomize.py").write_text(NO_TENSORFLOW)
    flags = ["--quick", "--out", str(tmp_path / "out")]
    flags += ["--data", str(data)] * (load_studies()[name].data != ("digits",))
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{tmp_path}:{TESTS.parent}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tf_largebatch", "study", name, *flags],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(page.QUICK)
    record = json.loads((tmp_path / "out" / "quick" / "record.json").read_text())
    assert record["quick"] and record["missing"] == 0
    assert {claim["verdict"] for claim in record["claims"]} == {CANNOT_TELL}
    for figure in record["figures"]:
        assert (tmp_path / "out" / "quick" / figure).read_bytes().startswith(b"\x89PNG")
