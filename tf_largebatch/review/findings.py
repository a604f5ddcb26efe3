"""What instruments found in a run's folder, read back for a report.

Standard library only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.records.files import read_json, write_csv

FOLDER = "diagnostics"  # of a run: <name>.json, .npz and .png of each instrument


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One instrument on one run.

    Attributes:
        name: of its files.
        title: one line.
        lines: (label, text) of its table.
        facts: (label, text) of what it was measured on.
        picture: PNG, or None.
    """

    name: str
    title: str
    lines: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...] = ()
    picture: bytes | None = None


def read_findings(run: Path) -> list[Finding]:
    """Returns what instruments left in a run's folder; one that is damaged says so."""
    return [_read(path) for path in sorted((run / FOLDER).glob("*.json"))]


def write_findings_csv(found: Sequence[tuple[str, Sequence[Finding]]], path: Path) -> None:
    """Writes one line per line of the instruments' tables.

    Args:
        found: (run, its findings).
        path: of the file.
    """
    lines = [
        (run, one.name, *line) for run, findings in found for one in findings for line in one.lines
    ]
    write_csv(path, ("run", "instrument", "quantity", "found"), lines)


def _read(path: Path) -> Finding:
    picture = path.with_suffix(".png")
    try:
        kept = read_json(path)
        return Finding(
            name=path.stem,
            title=str(kept["title"]),
            lines=tuple((str(label), str(text)) for label, text in kept["lines"]),
            facts=tuple((label, _text(value)) for label, value in kept["facts"].items()),
            picture=picture.read_bytes() if picture.exists() else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        problem = (("cannot be read", f"{path.name} is damaged: measure it again"),)
        return Finding(name=path.stem, title=path.stem, lines=problem)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
