"""How far the instruments are: what is measured, batches, and the time left where it is known."""

from tf_largebatch.records.progress import ProgressLine, draw_bar, time_left


class InstrumentProgress(ProgressLine):
    """Shows which instrument runs, and how many batches it has evaluated."""

    def start(self, label: str, batches: int | None = None) -> None:
        """Begins another instrument; None where its batches follow from what it meets."""
        self.end()
        self._label, self._total, self._done, self._start = label, batches, 0, self._clock()
        self.show(f"{label} ...", at_once=True)

    def advance(self) -> None:
        """Counts a batch."""
        self._done += 1
        bar, of, left = "", "", ""
        if self._total is not None:
            bar = f" {draw_bar(self._done, self._total)}" * self.live
            of = f" of {self._total:,}"
            left = time_left(self._clock() - self._start, self._done, self._total)
        self.show(f"{self._label}{bar or ':'} {self._done:,}{of} batches{left}")
