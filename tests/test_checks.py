"""What checks the code is one set of commands, wherever it is called."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
(COMMAND,) = re.findall(r"<!-- test command -->\n```bash\n(.*)\n```", README)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))


def test_before_a_commit_the_same_checks_run_as_in_readme():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert [hook["entry"] for hook in hooks] == [
        part for part in COMMAND.split(" && ") if part.startswith(("ruff", "mypy"))
    ]


def test_the_workflow_has_every_python_that_the_package_supports():
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    versions = WORKFLOW["jobs"]["readme"]["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_the_workflow_has_the_oldest_versions_of_the_ranges():
    matrix = WORKFLOW["jobs"]["ends-of-the-ranges"]["strategy"]["matrix"]
    oldest, newest = matrix["packages"]
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for name in ("tensorflow", "keras"):
        (low,) = re.findall(rf"^{name}>=([\d.]+),<", requirements, re.MULTILINE)
        low += ".0" * (low.count(".") == 1)
        assert f"{name}=={low}" in oldest.split()
    assert newest == "--upgrade -r requirements.txt"


def test_every_file_of_the_package_is_in_the_wheel():
    package = ROOT / "tf_largebatch"
    packed = PROJECT["tool"]["setuptools"]["package-data"]["tf_largebatch"]
    data = {path for pattern in packed for path in package.glob(pattern)}
    found = {p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {path for path in found if path.suffix != ".py"} == data
    # A folder without it is no package, and stays out.
    assert all((path.parent / "__init__.py").exists() for path in found if path.suffix == ".py")


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_the_workflow_needs_no_gpu_and_ends(job):
    assert WORKFLOW["jobs"][job]["env"] == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert WORKFLOW["jobs"][job]["timeout-minutes"] <= 90
