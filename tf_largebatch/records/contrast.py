"""What a miniature's rows must show for a claim of the paper, stated before they are run."""

import math
from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.checks import check

KINDS = ("more", "equal", "no_worse")
POINT = 1.0  # of error: five of the digits' 517 test images


@dataclass(frozen=True)
class Contrast:
    """One claim: the error of a row minus that of another, seed by seed.

        Contrast("SGD", "LARS", "more", "LARS holds where SGD does not")

    `more`: the first row's error is higher, by `smallest` points or more. `equal`: the two differ
    by less. `no_worse`: the first is not worse by as much. `review/verdict.py` decides, from five
    seeds on.
    """

    row: str  # label of a row of the miniature
    minus: str  # label of another
    kind: Literal["more", "equal", "no_worse"]
    claim: str  # the paper's, in a few words
    smallest: float = POINT  # the least difference that matters, points of error

    def __post_init__(self) -> None:
        check(self.kind in KINDS, "contrast.kind", f"one of {', '.join(KINDS)}", self.kind)
        size = self.smallest
        check(0 < size < math.inf, "contrast.smallest", "above 0 and finite", size)

    @property
    def difference(self) -> str:
        """What is measured: `SGD - LARS`."""
        return f"{self.row} - {self.minus}"

    def check_rows(self, labels: list[str]) -> None:
        """Raises ValueError unless both rows are among `labels` and differ."""
        for label in (self.row, self.minus):
            rule = f"a row of the miniature ({'; '.join(labels)})"
            check(label in labels, f"contrast of {self.claim!r}", rule, label)
        check(self.row != self.minus, "contrast.minus", "another row", self.minus)
