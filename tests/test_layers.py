"""The house has one rule: a folder imports lower folders only, in no circle, and never by name.

`violations` reads any package of this layout, so that the tests plant one of each kind and see it.
"""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tf_largebatch"
NAME = "tf_largebatch"

# From below; folders of one line are siblings, which never import each other.
FLOORS = (
    {"records"},
    {"data", "models", "optimizers", "schedules"},
    {"review"},
    {"training"},
    {"diagnostics", "planning"},
    {"recipes", "studies"},
    {"__main__", "old_names", "__init__"},  # the doors: what is there, under its public names
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = {"py.typed"}
FRAMEWORKS = {"keras", "tensorflow", "numpy", "matplotlib", "rich", "jinja2", "sklearn", "scipy"}
# What turns a text into a module.
BY_NAME = {"import_module", "__import__", "find_spec", "run_module", "run_path", "exec", "eval"}


def module_of(path: Path, package: Path) -> str:
    parts = (NAME, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(path: Path, modules: set[str], *, top_only: bool = False):
    """Yields (module, line) of every import; what is imported from a package may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in modules else node.module), node.lineno


def violations(package: Path) -> list[str]:
    """Returns what breaks the rule, a line each."""
    paths = {module_of(path, package): path for path in sorted(package.rglob("*.py"))}
    found, graph = [], {}
    for module, path in paths.items():
        own, where = module.split(".")[1], path.relative_to(package)
        if own not in LEVEL:
            found.append(f"{where}: no room of this name")
            continue
        for other, line in imports(path, set(paths)):
            if other.split(".")[0] != NAME:
                continue
            room = other.split(".")[1] if "." in other else "__init__"
            if room == own:
                graph.setdefault(module, set()).add(other)
            elif LEVEL.get(room, -1) < 0:
                found.append(f"{where}:{line} imports {other}, which is no room")
            elif LEVEL[room] == LEVEL[own]:
                found.append(f"{where}:{line} imports its sibling {other}")
            elif LEVEL[room] > LEVEL[own]:
                found.append(f"{where}:{line} imports {other} from above")
        for name, line in by_name(path):
            found.append(f"{where}:{line} imports by name ({name})")
    for what, edges in (("modules", graph), ("folders", inner(graph, paths))):
        try:
            graphlib.TopologicalSorter(edges).prepare()
        except graphlib.CycleError as error:
            found.append(f"circle of {what}: {' -> '.join(error.args[1])}")
    return found


def folder(module: str, paths: dict[str, Path]) -> str:
    return module if paths[module].name == "__init__.py" else module.rpartition(".")[0]


def inner(graph: dict[str, set[str]], paths: dict[str, Path]) -> dict[str, set[str]]:
    """Which folder inside a room imports which: a room and its own folders take turns only once."""
    edges = {}
    for module, others in graph.items():
        for other in others:
            a, b = folder(module, paths), folder(other, paths)
            if a != b:
                edges.setdefault(a, set()).add(b)
    return edges


def by_name(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in BY_NAME:
                yield name, node.lineno


def test_the_house_keeps_its_rule():
    assert violations(PACKAGE) == []


def test_the_package_has_the_rooms_of_the_design_and_nothing_else():
    entries = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name != "__pycache__"}
    assert entries <= set(LEVEL) | FILES
    assert len(entries) <= 15


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"records/a.py": "from tf_largebatch.review import b", "review/b.py": ""}, "from above"),
        ({"data/a.py": "from tf_largebatch.models import b", "models/b.py": ""}, "its sibling"),
        (
            {
                "review/a.py": "from tf_largebatch.review import b",
                "review/b.py": "def f():\n    from tf_largebatch.review.a import g",
            },
            "circle of modules",
        ),
        (
            {
                "training/a.py": "from tf_largebatch.training.workers import b",
                "training/workers/__init__.py": "",
                "training/workers/b.py": "from tf_largebatch.training import c",
                "training/c.py": "",
            },
            "circle of folders",
        ),
        ({"records/a.py": "import importlib\nimportlib.import_module('os')"}, "by name"),
        ({"data/a.py": "__import__('tf_largebatch.recipes.x')"}, "by name"),
        ({"utilities/a.py": ""}, "no room"),
        ({"data/a.py": "from tf_largebatch import LARS"}, "from above"),
    ],
    ids=[
        "up",
        "sibling",
        "circle",
        "circle-of-folders",
        "import-module",
        "__import__",
        "room",
        "door",
    ],
)
def test_a_planted_violation_is_found(files, said, tmp_path):
    for name, text in {"__init__.py": "", **files}.items():
        path = tmp_path / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for room in (tmp_path / NAME).iterdir():
        if room.is_dir() and not (room / "__init__.py").exists():
            (room / "__init__.py").write_text("")
    found = violations(tmp_path / NAME)
    assert found and all(said in line for line in found)


RECORDS = sorted((PACKAGE / "records").rglob("*.py")) + sorted((PACKAGE / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_records_and_recipes_need_the_standard_library_alone(path):
    for module, line in imports(path, set(), top_only=True):
        name = module.split(".")[0]
        assert name == NAME or name in sys.stdlib_module_names, f"{path.name}:{line}: {module}"


def test_importing_the_package_and_a_recipe_loads_no_framework():
    code = (
        "import sys, tf_largebatch, tf_largebatch.recipes.goyal_8k;"
        f"print(sorted(set(sys.modules) & {FRAMEWORKS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
