"""The critical batch that a forecast is given: a number, one with its interval, or a run's own."""

import math
from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.records.checks import check, check_number
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json
from tf_largebatch.review.findings import FOLDER

# Of `diagnose --noise-scale` and of `NoiseScaleScalars`, the later of training's last.
FILES = ("noise_scale.json", "noise_while_training.json")


@dataclass(frozen=True)
class CriticalBatch:
    """Images at which twice the updates of the fewest are needed.

    Attributes:
        value: > 0.
        low: of its interval; `value` where none is known.
        high: the same.
        source: what it is, as a line of the forecast.
    """

    value: float
    low: float
    high: float
    source: str = "given"

    def __post_init__(self) -> None:
        check_number("critical_batch", self.value, low_open=True)
        ordered = 0 < self.low <= self.value <= self.high < math.inf
        check(ordered, "critical_batch", "within its interval", (self.low, self.value, self.high))

    @classmethod
    def read(cls, text: str) -> "CriticalBatch":
        """From "N", "N,LOW,HIGH", or a run folder whose noise scale was measured; InputError."""
        if Path(text).is_dir():
            return cls._of_run(Path(text))
        try:
            value, *interval = (float(part) for part in text.split(","))
            low, high = interval or (value, value)
            return cls(value, low, high)
        except ValueError:
            raise InputError(
                "--critical-batch must be images above 0, such as 600; with an interval, such as "
                f"600,550,770; or a run folder. Received: {text}"
            ) from None

    @classmethod
    def _of_run(cls, run: Path) -> "CriticalBatch":
        for path in (run / FOLDER / name for name in FILES):
            try:
                measured = read_json(path)["measured"]["b_simple"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if measured:
                value = float(measured)
                return cls(value, value, value, f"noise scale of {run} (measured)")
        raise InputError(
            f"--critical-batch must be a run with a measured noise scale. Received: {run}, without "
            f"one. Run: tf-largebatch diagnose {run} --noise-scale"
        )
