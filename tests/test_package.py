"""What `pip install` brings: the right packages, a line for each that is missing, all files."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, call, run_recipe

import tf_largebatch
from tf_largebatch.__main__ import main
from tf_largebatch.records import committed, extras
from tf_largebatch.records.errors import InputError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def lines(name):
    """The requirements of a file, without reasons and without what it includes."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [x for x in text.splitlines() if x and not x.startswith(("#", "-r"))]


def normal(requirement):
    return requirement.replace("'", '"').replace(" ", "")


def test_requirements_are_the_core_and_the_extras_that_run_something():
    wanted = list(PROJECT["dependencies"])
    for extra in ("review", "digits", "augment", "parity"):
        wanted += OPTIONAL[extra]
    assert sorted(map(normal, wanted)) == sorted(map(normal, lines("requirements.txt")))


@pytest.mark.parametrize("extra", ["docs", "jax"])
def test_developers_have_the_other_extras_in_the_same_ranges(extra):
    assert set(map(normal, OPTIONAL[extra])) <= set(map(normal, lines("requirements-dev.txt")))


def test_every_requirement_has_its_reason_on_the_line_before():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for before, line in zip(text, text[1:], strict=False):
        assert line.startswith("#") or not line or before.startswith("# "), line


def test_the_table_of_imports_knows_the_extras():
    names = {"": PROJECT["dependencies"], **OPTIONAL}
    for extra, packages in extras.EXTRAS.items():
        stated = {re.match(r"[\w-]+", requirement)[0] for requirement in names[extra]}
        assert set(packages.values()) <= stated
    assert {"review", "digits", "augment", "jax", "tpu"} == set(extras.EXTRAS) - {""}


class Hidden:
    """Hides modules from `import`, as if they were not installed."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def uninstall(monkeypatch, package):
    """Lets no installed package of this name be found; imports of it still work."""
    find = importlib.metadata.version

    def version(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def hide(monkeypatch, *names):
    for loaded in list(sys.modules):
        if loaded.split(".")[0] in names:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Hidden(*names), *sys.meta_path])


@pytest.mark.parametrize(
    ("package", "extra", "recipe"),
    [
        ("scikit-learn", "digits", "goyal_8k"),
        ("matplotlib", "review", "goyal_8k"),
        ("tensorboard", "review", "goyal_8k"),
    ],
)
def test_a_run_names_the_extra_before_anything_starts(
    package, extra, recipe, tmp_path, monkeypatch
):
    uninstall(monkeypatch, package)
    done = run_recipe(recipe, "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert f'{package} is not installed. Run pip install "tf-largebatch[{extra}]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("package", "said"),
    [("matplotlib", "matplotlib is not installed"), ("tensorboard", "a folder fashion_mnist")],
)
def test_a_study_needs_no_tensorboard(package, said, monkeypatch):
    uninstall(monkeypatch, package)
    done = call(main, ["study", "lars_or_sgd", "--data", str(Path(__file__).parent)])
    assert done.returncode == 2 and said in done.stderr


def test_a_command_names_the_extra_of_what_it_imports(tmp_path, monkeypatch):
    hide(monkeypatch, "matplotlib")
    arguments = ["plan", "--devices", "64", "--device", "v100", "--recipe", "goyal_8k"]
    done = call(main, [*arguments, "--sweep", "--out", str(tmp_path)])
    assert done.returncode == 2
    assert 'matplotlib is not installed. Run pip install "tf-largebatch[review]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_public_name_names_the_extra_that_it_needs(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tf_largebatch.review.tens")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("tf_largebatch.review.tensorboard", raising=False)
    hide(monkeypatch, "tensorboard")
    with pytest.raises(ImportError, match=r'TensorBoardScalars: .*"tf-largebatch\[review\]"'):
        _ = tf_largebatch.TensorBoardScalars


def test_an_import_error_that_is_no_extra_stays_what_it_is():
    assert extras.describe("tf_largebatch.nowhere") is None
    assert extras.describe("tensorflow.python").endswith('pip install "tf-largebatch"')
    with pytest.raises(InputError):
        extras.require("tpu")  # which no test needs


def test_records_of_a_clone_are_where_they_are_committed():
    assert committed.committed("recipes") == ROOT / "recipes"


# Relative links of README, as an index page would break them.
RELATIVE = re.compile(r"\]\((?!https?:|#)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".*", "build", "dist", "runs", "venv", "*.egg-info", "_build")

    def ignore(path, names):  # the records of recipes/ lie in folders of the name runs
        inside = Path(path).parent == ROOT / "recipes"
        return set() if inside else skipped(path, names)

    shutil.copytree(ROOT, folder / "clone", ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "clone"], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_is_whole(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (name,) = [name for name in inside if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tf_largebatch").rglob("*")}
    kinds = (".py", ".json", ".j2", ".typed")
    assert {name for name in there if name.endswith(kinds)} <= inside
    records = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("recipes/*/runs/*/result.json")}
    records |= {p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/claims/*/record.json")}
    assert records
    assert {f"tf_largebatch/records/committed/{name}" for name in records} <= inside
    assert RELATIVE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert RELATIVE.findall(metadata) == []
    assert "![" not in metadata or "/raw/main/recipes/" in metadata


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_that_never_saw_the_clone(wheel, tmp_path):
    """Packages are the running environment's, shared through a .pth file."""
    clean = tmp_path / "clean"
    venv.create(clean, symlinks=True)
    (site,) = clean.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", clean / "bin" / "python", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*arguments):
        done = subprocess.run(
            [clean / "bin" / arguments[0], *arguments[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = run("python", "-c", "import tf_largebatch; print(tf_largebatch.__file__)")
    assert place.startswith(str(clean))
    here = call(main, ["list", "--json"]).stdout
    assert json.loads(run("tf-largebatch", "list", "--json")) == json.loads(here)
    assert "agrees" in run("tf-largebatch", "study")
    assert "global batch    8192 = " in run("tf-largebatch", "plan", "goyal_8k")
    assert "#SBATCH" in run("tf-largebatch", "job", "goyal_8k", "--on", "slurm")
    short = ("epochs=0.5", "schedule.drop_epochs=0.4", "global_batch=256")
    flags = [word for change in short for word in ("--set", change)]
    run("python", "-m", "tf_largebatch.recipes.goyal_256", *flags, "--run-dir", "run")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    run("tf-largebatch", "compare", "run", "--out", "page")
    assert list((tmp_path / "page").glob("*.html"))
