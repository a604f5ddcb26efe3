"""Prints the changelog's section of a release, after holding the tag against every stated version.

    python tools/release_notes.py v0.1.0

Exit 1, in one line, where a version differs or the changelog has no section of it.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.records import __version__  # noqa: E402


def versions() -> dict[str, str]:
    """Returns the version that each file states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return {
        "pyproject.toml": project["version"],
        "tf_largebatch/records/__init__.py": __version__,
        "CITATION.cff": re.search(r"^version: (.+)$", citation, re.MULTILINE)[1],
    }


def notes(changelog: str, version: str) -> str:
    """Returns the section of a version, without its heading; "" where there is none."""
    pattern = rf"^## {re.escape(version)}(?:[ ].*?)?\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def main() -> int:
    """Checks and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tag", help="of the release, v and its version")
    version = parser.parse_args().tag.removeprefix("v")
    wrong = [f"{path} says {stated}" for path, stated in versions().items() if stated != version]
    text = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not text:
        wrong.append("CHANGELOG.md has no section of it")
    if wrong:
        print(f"release {version}: {'; '.join(wrong)}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
