"""Writes the measured numbers into docs/engine.md from the committed records.

    python tools/render_engine_page.py           # after a record has changed
    python tools/render_engine_page.py --check   # exit 1 if the page says something else

The rest of the page is written by hand.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

import benchmark_engine

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORDS = ROOT / "docs" / "engine.md", ROOT / "tools" / "records"


def chaos_sentence() -> str:
    """What the chaos record says."""
    record = json.loads((RECORDS / "chaos.json").read_text(encoding="utf-8"))
    ways: Counter = sum((Counter(kind) for kind in record["kinds"].values()), Counter())
    return (
        f"of {record['injections']:,} injections of {len(record['kinds'])} kinds "
        f"{ways['unharmed']:,} left weights, curve and record as they were, bit for bit, "
        f"{ways['refused, then repaired']:,} were refused in one line and ended so after a repair, "
        f"{ways['failed']:,} failed ([record](../tools/records/chaos.json))."
    )


def benchmark_section() -> str:
    """The tables of the benchmark record."""
    record = json.loads((RECORDS / "benchmark_engine.json").read_text(encoding="utf-8"))
    hardware, versions = record["hardware"], record["versions"]
    return (
        f"`python tools/benchmark_engine.py`, {record['network']}, {hardware['cores']} cores of "
        f"{hardware['cpu']}, TensorFlow {versions['tensorflow']}: medians of interleaved rounds "
        "([record](../tools/records/benchmark_engine.json)).\n\n"
        f"{benchmark_engine.format_tables(record)}\n"
    )


def rendered() -> str:
    """The page with the records' numbers."""
    text = PAGE.read_text(encoding="utf-8")
    text = re.sub(r"<!-- chaos -->[^\n]*", f"<!-- chaos --> {chaos_sentence()}", text)
    return text.partition("<!-- benchmark -->")[0] + f"<!-- benchmark -->\n{benchmark_section()}"


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    if parser.parse_args().check:
        if rendered() != PAGE.read_text(encoding="utf-8"):
            sys.exit("docs/engine.md is stale: run python tools/render_engine_page.py")
        return
    PAGE.write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    main()
