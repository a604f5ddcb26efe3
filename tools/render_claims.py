"""Writes docs/claims.md and README.md's table of claims from the committed records of the studies.

python tools/render_claims.py           # after a record has changed
python tools/render_claims.py --check   # exit 1 if a page says something else
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.__main__ import load_studies  # noqa: E402
from tf_largebatch.review.verdict import AGREES, CONTRADICTS  # noqa: E402
from tf_largebatch.studies import page  # noqa: E402

BEGIN, END = "<!-- claims -->\n", "<!-- end -->"
INTRODUCTION = """\
# Which claims hold

Each claim of the large-batch papers that matters to somebody who has to choose a batch, tried on
real data: the paper's effect, ours with its 95 % interval over seeds, and a verdict by a rule that
was fixed before the run. The networks and data are small: where a claim fails here it may hold on
ImageNet, and the study's page says what differs. A verdict is *cannot tell* where the interval is
too wide, where seeds are too few, or where one part of a claim holds and another is open.
"""


def claims_page() -> str:
    """Returns docs/claims.md."""
    studies = load_studies()
    records = page.read_records(ROOT / "docs" / "claims", studies)
    lines = [INTRODUCTION, *page.claims_table(studies, records, links="claims/")]
    lines += ["", "## What is not finished", ""]
    for name, study in studies.items():
        if name not in records:
            lines.append(
                f"- {study.title}: nothing has run. `python -m tf_largebatch study {name}`"
            )
        elif records[name]["missing"]:
            missing = f"at least {records[name]['missing']:,} of its trials have not run"
            lines.append(f"- {study.title}: {missing}. `python -m tf_largebatch study {name}`")
    if lines[-1] == "":
        lines.append("Every trial of every study has run.")
    return "\n".join(lines) + "\n"


def section() -> str:
    """Returns the lines of README.md between the markers."""
    studies = load_studies()
    records = page.read_records(ROOT / "docs" / "claims", studies)
    found = [claim["verdict"] for record in records.values() for claim in record["claims"]]
    all_claims = sum(len(study.claims) for study in studies.values())
    agree, contradict = found.count(AGREES), found.count(CONTRADICTS)
    text = (
        f"Of {all_claims} claims, tried with seeds, tuned rivals and a rule fixed before the run, "
        f"{agree} agree and {contradict} contradict so far; on the\nothers the studies cannot tell "
        "yet, or have not run: [docs/claims.md](docs/claims.md)."
    )
    table = page.verdicts_table(studies, records, links="docs/claims/")
    return "\n".join([text, "", *table, ""])


def main() -> int:
    """Renders, or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    fresh = {
        ROOT / "docs" / "claims.md": claims_page(),
        readme: before + BEGIN + section() + END + rest.partition(END)[2],
    }
    stale = [p for p, text in fresh.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in stale:
        if arguments.check:
            print(f"{path.name} is stale: run python tools/render_claims.py", file=sys.stderr)
        else:
            path.write_text(fresh[path], encoding="utf-8")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
