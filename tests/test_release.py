"""A release is refused where versions differ or the changelog is silent."""

import subprocess
import sys

from commands import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import release_notes  # noqa: E402

CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-12-01)\n\n- new\n\n## 0.1.0\n\n- old\n"


def run(tag):
    command = [sys.executable, "tools/release_notes.py", tag]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_every_file_states_the_same_version():
    assert len(set(release_notes.versions().values())) == 1


def test_a_tag_of_another_version_is_refused_and_every_file_named():
    done = run("v99.0.0")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    for name in (*release_notes.versions(), "CHANGELOG.md"):
        assert name in done.stderr


def test_the_notes_are_the_section_of_the_version_alone():
    assert release_notes.notes(CHANGELOG, "0.2.0") == "- new"
    assert release_notes.notes(CHANGELOG, "0.1.0") == "- old"
    assert release_notes.notes(CHANGELOG, "0.1") == release_notes.notes(CHANGELOG, "0.3.0") == ""
