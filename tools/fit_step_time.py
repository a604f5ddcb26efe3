"""Fits the model of an update's time to the published systems: planning/step_time.json.

    python tools/fit_step_time.py

Prints the leave-one-out table, by group of systems, and the median error beside a straight line's.
"""

import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

from tf_largebatch.planning import step_time
from tf_largebatch.planning.devices import load_systems
from tf_largebatch.records.files import write_json


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
    print({name: round(share, 3) for name, share in constants.shares.items()})
    print(f"overhead {1e3 * constants.overhead:.2f} ms")
    print(
        f"typical error {record['typical_error']:.1%}, of a straight line "
        f"{record['typical_error_of_a_line']:.1%}"
    )


if __name__ == "__main__":
    main()
