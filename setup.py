"""What pyproject.toml cannot say: links that work on an index page, and records in the wheel."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# `list` and `study` show what these say; tf_largebatch/records/committed.py finds them.
RECORDS = ("recipes/*/runs/*/result.json", "docs/claims/*/record.json")
# The beginning of a Markdown link or picture; a link's text may be a picture.
LINK = re.compile(r"(!?)(\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?!https?:|#)")


def long_description() -> str:
    """Returns README.md with every relative link led to the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    places = {"!": f"{project['urls']['Homepage']}/raw/main/"}
    places[""] = places["!"].replace("/raw/", "/blob/")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return LINK.sub(lambda found: "".join(found.groups()) + places[found[1]], text)


class BuildWithRecords(build_py):
    """Copies the records of a clone into the built package; an sdist has them too."""

    def run(self) -> None:
        """Builds the package, then adds the records."""
        super().run()
        inside = Path(self.build_lib) / "tf_largebatch" / "records" / "committed"
        shutil.rmtree(inside, ignore_errors=True)
        for pattern in RECORDS:
            for path in sorted(ROOT.glob(pattern)):
                target = inside / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(
    cmdclass={"build_py": BuildWithRecords},
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
