"""How far the preparation is: pictures, bytes, rate and time left."""

from tf_largebatch.records.progress import ProgressLine, format_seconds


class Progress(ProgressLine):
    """Tells pictures, bytes, rate and time left; before they are counted, what is going on."""

    def begin(self, *, pictures: int, shards: int) -> None:
        """Starts the clock of `advance`."""
        self._start = self._clock()
        # The first shard's time has the start of the workers in it: a log waits for more.
        self._shown = None if self.live else self._start
        self._pictures, self._shards = pictures, shards
        self._done = self._written = self._files = self._bytes = self._kept = 0

    def advance(self, *, pictures: int, size: int, kept: bool) -> None:
        """Counts a shard of so many pictures and bytes, one `kept` not towards the rate."""
        self._done += pictures
        self._files += 1
        self._kept += kept
        if not kept:
            self._written += pictures
            self._bytes += size
        seconds = self._clock() - self._start
        before = f" ({self._kept:,} from before)" if self._kept else ""
        text = f"{self._done:,} of {self._pictures:,} pictures · "
        text += f"{self._files:,} of {self._shards:,} shards{before}"
        if self._written and seconds > 0:
            rate = self._written / seconds
            text += f" · {rate:,.0f}/s, {self._bytes / seconds / 1e6:,.0f} MB/s"
            text += f" · {format_seconds((self._pictures - self._done) / rate)} left"
        self.show(text, at_once=self._files == self._shards)
