"""The workers of one run: who is the chief, and how they agree before anything is trained."""

import hashlib
import json
from collections.abc import Mapping

import tensorflow as tf

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers import cluster
from tf_largebatch.training.workers.strategy import make_strategy

LONGEST = 400  # characters of a value that is compared
MESSAGE_BYTES = 2048  # of each worker's part in an exchange; a longer text is cut


class Team:
    """Every process that trains this run; alone, a team of one that exchanges nothing.

    Making it starts the strategy, which waits until all workers are there. Whatever is exchanged
    must be exchanged by every worker at the same point. The arguments are those of `make_strategy`;
    the `chief` writes what is written once.
    """

    def __init__(self, replicas: int | None = None, **options):
        workers = cluster.resolve()
        self._size = 1 if workers is None else workers.size
        self.chief = workers is None or workers.is_chief
        self.strategy = make_strategy(replicas, **options)
        cluster.report_ready()

    @property
    def replicas(self) -> int:
        """Devices of all workers together."""
        return self.strategy.num_replicas_in_sync

    def exchange(self, text: str) -> list[str]:
        """Returns every worker's text, by rank."""
        if self._size == 1:
            return [text]
        data = text.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
        mine = tf.constant([list(data)], tf.int32)
        per_replica = self.strategy.run(lambda: tf.identity(mine))
        rows = self.strategy.gather(per_replica, axis=0).numpy()
        # A worker with several devices sent its text from each of them.
        rows = rows[:: len(rows) // self._size]
        return [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in rows]

    def least(self, number: int) -> int:
        """Returns the smallest number of all workers."""
        return min(int(text) for text in self.exchange(str(number)))

    def any(self, number: int) -> int:
        """Returns the largest number of all workers: 0 where each has 0."""
        return max(int(text) for text in self.exchange(str(number)))

    def agree(self, values: Mapping[str, str], *, problem: Exception | None = None) -> None:
        """InputError on every worker if one has a problem, or if a value differs between them."""
        short = {what: _short(value) for what, value in values.items()}
        texts = self.exchange(f"!{problem}" if problem else json.dumps(short))
        for rank, text in enumerate(texts):
            if text.startswith("!"):
                raise InputError(text[1:] if self._size == 1 else f"worker {rank}: {text[1:]}")
        first, *others = (json.loads(text) for text in texts)
        for rank, other in enumerate(others, start=1):
            for what in first | other:
                if first.get(what) != other.get(what):
                    raise InputError(
                        f"{what} must be the same on all workers. Received: {first.get(what)} on "
                        f"worker 0, {other.get(what)} on worker {rank}"
                    )


def _short(value: str) -> str:
    """A text that fits a message, and is another one where the value is."""
    if len(value) <= LONGEST:
        return value
    return f"{value[:LONGEST]}... ({hashlib.sha256(value.encode()).hexdigest()[:16]})"
