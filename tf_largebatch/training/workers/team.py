"""The workers of one run: who is the chief, and how they agree before anything is trained."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers import cluster

if TYPE_CHECKING:
    import tensorflow as tf

LONGEST = 400  # characters of a value that is compared
MESSAGE_BYTES = 2048  # of each worker's part in an exchange; a longer text is cut
WORD = 4  # bytes of the numbers that travel: collectives take 32-bit integers everywhere


class Team:
    """Every process that trains this run; alone, a team of one that exchanges nothing.

    Making it starts the strategy, which waits until all workers are there. Whatever is exchanged
    must be exchanged by every worker at the same point. The arguments are those of `make_strategy`;
    the `chief` writes what is written once.
    """

    def __init__(self, replicas: int | None = None, **options):
        from tf_largebatch.training.workers.strategy import make_strategy

        workers = cluster.resolve()
        self.size = 1 if workers is None else workers.size
        self.chief = workers is None or workers.is_chief
        self.strategy = make_strategy(replicas, **options)
        cluster.report_ready()

    @classmethod
    def of(cls, strategy: "tf.distribute.Strategy | None") -> "Team":
        """The team of a strategy that a user made; None, without TensorFlow, is a team of one."""
        team = cls.__new__(cls)
        team.strategy, team.size, team.chief = strategy, 1, True
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            team.size = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
            team.chief = bool(strategy.extended.should_checkpoint)
        return team

    @property
    def replicas(self) -> int:
        """Devices of all workers together."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync

    def exchange(self, text: str) -> list[str]:
        """Returns every worker's text, by rank."""
        data = text.encode()
        if self.size > 1:
            data = data[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
        return [d.rstrip(b"\0").decode(errors="replace") for d in self.gather(data)]

    def gather(self, data: bytes) -> list[bytes]:
        """Returns every worker's data, by rank; as many bytes on each."""
        if self.size == 1:
            return [data]
        words = np.frombuffer(data.ljust(-(-len(data) // WORD) * WORD, b"\0"), np.int32)
        rows = self._gather_words(words[np.newaxis]).numpy()
        # A worker with several devices sent its part from each of them.
        rows = rows[:: len(rows) // self.size]
        return [row.tobytes()[: len(data)] for row in rows]

    @functools.cached_property
    def _gather_words(self) -> Callable:
        """Traced once for each length."""
        import tensorflow as tf

        def gather(mine):
            return self.strategy.gather(self.strategy.run(tf.identity, args=(mine,)), axis=0)

        traced = tf.function(gather, autograph=False)
        return lambda words: traced(tf.constant(words))

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
                raise InputError(text[1:] if self.size == 1 else f"worker {rank}: {text[1:]}")
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
