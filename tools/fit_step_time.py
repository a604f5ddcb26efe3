"""Fits the model of an update's time to the published systems: planning/step_time.json.

    python tools/fit_step_time.py

Prints the leave-one-out table, by group of systems, and the median error beside a straight line's;
docs/planning.md gets both.
"""

import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

from tf_largebatch.planning import step_time
from tf_largebatch.planning.devices import load_systems
from tf_largebatch.records.files import write_json, write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "planning.md"
BEGIN, END = "<!-- fit -->\n", "<!-- end -->"
TEXT = """\
Fitted: for each kind of device the share of its peak that ResNet-50 reaches, and one overhead for
all, to {systems} published systems. Tested by leaving out one group at a time (an author, or a
submitter in one round of MLPerf): **half of the predictions are within {error:.0%}** of what was
published. A straight line (one share of the peak for every device, no overhead) reaches
{line:.0%}. Where a group is alone with its device, the share is the mean of the device's class,
and the error is larger: TPU v4 in MLPerf v1.0 is a factor of two off at 2,048 chips and more,
since the overhead of the other systems is longer than its whole update. There the line is better.

| system | devices | batch | published, ms | predicted, ms | off by | line |
|---|---|---|---|---|---|---|
"""


def section(record: dict) -> str:
    """The lines of docs/planning.md between the markers."""
    line = record["typical_error_of_a_line"]
    text = TEXT.format(systems=record["systems"], error=record["typical_error"], line=line)
    for row in record["left_out"]:
        published = row["published_ms"]
        off, of_line = (row[name] / published - 1 for name in ("predicted_ms", "line_ms"))
        text += f"| {row['id']} | {row['devices']} x {row['device']} | {row['global_batch']:,} | "
        text += f"{published:.1f} | {row['predicted_ms']:.1f} | {off:+.0%} | {of_line:+.0%} |\n"
    return text


def main() -> None:
    """Fits, prints, writes."""
    systems = load_systems()
    constants, rows = step_time.fit(systems), step_time.leave_one_out(systems)
    for row in rows:
        error = row["predicted_ms"] / row["published_ms"] - 1
        line = row["line_ms"] / row["published_ms"] - 1
        print(
            f"{row['id']:<52} {row['devices']:>5} x {row['device']:<10} {row['global_batch']:>6}"
            f"{row['published_ms']:>8.1f} ms  model {error:+5.0%}  line {line:+5.0%}"
        )
    record = {
        "constants": asdict(constants),
        "systems": len(systems),
        "typical_error": round(step_time.typical_error(rows), 4),
        "typical_error_of_a_line": round(step_time.typical_error(rows, "line_ms"), 4),
        "left_out": rows,
    }
    write_json(step_time.FITTED, record)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END, 1)[1]
    write_text(PAGE, f"{before}{BEGIN}{section(record)}{END}{after}")
    print({name: round(share, 3) for name, share in constants.shares.items()})
    print(f"overhead {1e3 * constants.overhead:.2f} ms")
    print(
        f"typical error {record['typical_error']:.1%}, of a straight line "
        f"{record['typical_error_of_a_line']:.1%}"
    )


if __name__ == "__main__":
    main()
