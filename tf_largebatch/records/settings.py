"""How one machine runs a recipe: what the command line decides, and no paper."""

from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16")
WORKER_TIMEOUT, JOIN_TIMEOUT = 30, 300  # seconds; TensorFlow's own is 7.5 for a silent worker


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The machine's side of a run."""

    precision: str = "float32"  # of the forward and backward pass; weights and updates stay float32
    wire: str = "float32"  # type in which gradients travel between devices
    # MiB of gradients sent at a time. TensorFlow's default, one pack of all, lets nothing overlap.
    pack_mb: int = 25
    checkpoint_updates: int | None = None  # between checkpoints, besides those of time and epoch
    checkpoint_minutes: float = 10.0  # between checkpoints within an epoch
    keep: int = 2  # newest checkpoints kept; one before the newest in case that is damaged
    skip_unreadable: int = 0  # unreadable images of an epoch that are skipped; 0 stops at the first

    @property
    def checkpoints(self) -> str:
        """When checkpoints are written, in words."""
        every = f"every {self.checkpoint_minutes:g} minutes"
        if self.checkpoint_updates:
            every = f"every {self.checkpoint_updates:,} updates, {every}"
        return f"{every}, at each epoch's end and when stopped; the newest {self.keep} are kept"
