"""The dependency rule: a module imports lower layers only, and layer 0 the standard library."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tf_largebatch"

# Subpackages are one sibling each. Level 0 are all single modules not named here.
LEVELS = {
    "schedules": 1,
    "optimizers": 1,
    "models": 1,
    "data": 1,
    "distribution": 1,
    "callbacks": 1,
    "diagnostics": 1,
    "report": 2,
    "page": 2,
    "curves": 2,
    "tables": 2,
    "build": 2,
    "train": 2,
    "watchers": 2,
    "trial_training": 2,
    "micro_batch": 2,
    "experiment": 2,
    "session": 2,
    "cli": 3,
    "launch": 3,
    "diagnose": 3,
    "compare": 3,
    "comparison": 2,
    "comparison_tables": 2,
    "recipes": 4,
    "studies": 4,
    "__main__": 5,
    "__init__": 4,
}
FRAMEWORKS = {"keras", "tensorflow", "numpy", "matplotlib", "rich", "jinja2", "sklearn"}


def unit(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path, *, top_only: bool = False):
    """Yields (module, line) for every absolute import; with `top_only`, of the module's top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            if node.module == "tf_largebatch":
                for alias in node.names:
                    yield f"tf_largebatch.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_lower_layers_only(path):
    own = unit(path)
    level = LEVELS.get(own, 0)
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "tf_largebatch" or len(parts) == 1 or parts[1] == own:
            continue
        other = LEVELS.get(parts[1], 0)
        allowed = other < level or (level == 0 and other == 0) or (level == 2 and other == 2)
        assert allowed, f"{path.name}:{line} (layer {level}) imports {module} (layer {other})"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layer_0_and_the_command_line_load_no_framework(path):
    level = LEVELS.get(unit(path), 0)
    if level in (1, 2):
        return
    for module, line in imports(path, top_only=True):
        name = module.split(".")[0]
        ours = name == "tf_largebatch"
        assert ours or name in sys.stdlib_module_names, f"{path.name}:{line} imports {module}"


def test_importing_the_package_and_a_recipe_loads_no_framework():
    import subprocess

    code = (
        "import sys, tf_largebatch, tf_largebatch.recipes.goyal_8k;"
        f"print(sorted(set(sys.modules) & {FRAMEWORKS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
