"""What the HTML pages share: their templates, and records as text."""

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tf_largebatch.records.files import write_text
from tf_largebatch.review.tables import MISSING, is_finite


def write_page(template: str, path: Path, **values) -> Path:
    """Renders a template of `templates/` to one file that needs no network; returns its path.

    Every variable that the template names must be among the `values`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(autoescape=True, loader=templates, undefined=StrictUndefined)
    address = "data:image/png;base64,"
    environment.filters["png"] = lambda data: address + base64.b64encode(data).decode()
    write_text(path, environment.get_template(template).render(**values))
    return path


def split_shared(columns: Sequence[Iterable[tuple[str, object]]]) -> tuple[list, list]:
    """Splits lists of (label, value) into what is the same in all of them and what is not.

    A label that comes several times in one list keeps all its texts, one a line. Returns [(label,
    text)] and [(label, [text of each list])], in the order of first appearance.
    """
    texts: dict[str, list[list[str]]] = {}
    for number, pairs in enumerate(columns):
        for label, value in pairs:
            column = texts.setdefault(str(label).strip(), [[] for _ in columns])
            column[number].append(plain(value))
    joined = {label: ["\n".join(t) or MISSING for t in column] for label, column in texts.items()}
    shared = [(label, c[0]) for label, c in joined.items() if len(set(c)) == 1]
    return shared, [(label, c) for label, c in joined.items() if len(set(c)) > 1]


def flatten(values: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, text) for every leaf of nested dicts."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", plain(value)


def plain(value: object) -> str:
    """Returns a value as text; one that is missing or not finite is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)


def duration_text(seconds: float) -> str:
    """Returns a time in words."""
    if not is_finite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"
