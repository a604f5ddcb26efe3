"""Where in the stream of examples a forward pass stands, for layers that draw random numbers.

The training step says it, random layers ask; neither knows the other. A position of the stream is
one example in one epoch (see `batching.py`), so what is drawn from it depends on neither replicas
nor micro-batches.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Position:
    """The first example of a forward pass; the others follow it in the stream."""

    seed: int  # of the run
    first: Any  # its position, a whole number or an int64 scalar tensor


_current: contextvars.ContextVar[Position | None] = contextvars.ContextVar("position", default=None)


def current() -> Position | None:
    """Returns the position of the forward pass that runs now; None where nobody said it."""
    return _current.get()


@contextlib.contextmanager
def standing_at(position: Position) -> Iterator[None]:
    """Makes `position` the current one inside the block."""
    token = _current.set(position)
    try:
        yield
    finally:
        _current.reset(token)
