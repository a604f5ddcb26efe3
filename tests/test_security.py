"""What SECURITY.md marks as held by a test: sockets, writes, pickles, archives, pages."""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commands import ROOT, run_recipe
from workers import run_workers

PACKAGE = ROOT / "tf_largebatch"
TEMPLATES = PACKAGE / "review" / "templates"
TINY = ["--set=epochs=1", "--set=schedule.drop_epochs=1", "--set=global_batch=256"]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

heard: list[tuple] = []
listening_to: list[bool] = []


def hear(event, arguments):
    """Stays for good, as audit hooks do; notes what happens while `listening_to` is not empty."""
    if listening_to and event in ("open", "socket.bind", "socket.connect"):
        heard.append((event, *arguments))


@pytest.fixture
def audited():
    if not any(event == "hooked" for event, *_ in heard):
        sys.addaudithook(hear)
        heard.append(("hooked",))
    del heard[1:]
    listening_to.append(True)
    yield heard
    listening_to.clear()


def test_a_run_opens_no_socket_and_writes_below_its_folder_only(
    audited, tmp_path, tmp_path_factory
):
    folder = tmp_path / "run"
    done = run_recipe("goyal_256", "--run-dir", folder, *TINY)
    listening_to.clear()
    assert done.returncode == 0, done.stderr
    assert [one for one in audited if one[0].startswith("socket")] == []
    written = {
        os.fsdecode(path)
        for event, path, _, flags in (one for one in audited if one[0] == "open")
        if flags & WRITES and isinstance(path, str | bytes)
    }
    outside = {Path(p) for p in written if not Path(p).is_relative_to(folder)}
    temporary = Path(tempfile.gettempdir())
    passing = {p for p in outside if p.parent == temporary and p.name.startswith("tmp")}
    assert not [p for p in passing if p.exists()]
    passing |= {temporary, *temporary.glob("__autograph_generated_file*")}
    passing |= {tmp_path_factory.getbasetemp() / ".lock"}  # pytest's
    unexplained = outside - passing - {Path(os.devnull)}
    assert {p for p in unexplained if "__pycache__" not in p.parts} == set()
    assert any(p.endswith("seed.json.part") for p in written)  # the hook hears


@pytest.mark.slow
def test_a_run_in_a_fresh_home_leaves_there_what_the_page_says(tmp_path):
    places = {name: tmp_path / name for name in ("home", "cwd", "tmp")}
    for place in places.values():
        place.mkdir()
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "KERAS", "MPL"))}
    done = subprocess.run(
        [sys.executable, "-m", "tf_largebatch.recipes.goyal_256", *TINY]
        + ["--run-dir", str(tmp_path / "run")],
        cwd=places["cwd"],
        env=plain
        | {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "PYTHONPATH": str(ROOT)}
        | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    left = [p for place in places.values() for p in place.rglob("*") if p.is_file()]
    assert {
        p.relative_to(tmp_path)
        for p in left
        if p.name != "keras.json" and "matplotlib" not in p.parts
    } == set()


def listening():
    """(address, port) of every socket on which this process listens."""
    own = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            own.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.append(("all" if set(address) == {"0"} else address, int(port, 16)))
    return sorted(set(found))


def join():
    """A worker's part: where it listens, and where it should."""
    from tf_largebatch.training.workers.strategy import make_strategy

    make_strategy()
    config = json.loads(os.environ["TF_CONFIG"])
    mine = config["cluster"]["worker"][config["task"]["index"]]
    return listening(), int(mine.rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_listens_on_its_port_alone_and_there_on_all_addresses():
    for found, port in run_workers(join):
        assert found == [("all", port)]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_no_pickle_is_loaded_no_archive_unpacked_and_no_model_opened_unsafely():
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, keywords in calls(ast.parse(path.read_text(encoding="utf-8"))):
            last = name.rpartition(".")[2]
            assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), path
            assert keywords.get("allow_pickle", "False") == "False", path
            assert last not in ("extractall", "unpack_archive"), path
            assert not (last == "extract" and "archive" in name), path
            assert keywords.get("safe_mode", "True") == "True", path
            assert keywords.get("shell", "False") == "False", path
            assert name not in ("os.system", "os.popen"), path


def test_every_page_forbids_the_browser_to_load_anything():
    pages = [
        p for p in TEMPLATES.glob("*.html.j2") if p.name not in ("page.html.j2", "parts.html.j2")
    ]
    assert len(pages) >= 3
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert '{% extends "page.html.j2" %}' in text, page
        assert "|safe" not in re.sub(r"\s", "", text), page
        assert "<script" not in text, page
    frame = (TEMPLATES / "page.html.j2").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in frame


def test_the_page_marks_what_is_tested_here():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert text.count("✓") > 10
    assert "`tests/test_security.py`" in text
