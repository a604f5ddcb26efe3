"""How one machine runs a recipe: what the command line decides, and no paper."""

from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16")
WORKER_TIMEOUT, JOIN_TIMEOUT = 30, 300  # seconds; TensorFlow's own is 7.5 for a silent worker


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The machine's side of a run.

    Attributes:
        precision: of the forward and backward pass; weights and updates stay float32.
        wire: type in which gradients travel between devices.
        pack_mb: MiB of gradients sent at a time.
        checkpoint_updates: updates between checkpoints, or None for none besides those of time
            and epoch.
        checkpoint_minutes: minutes between checkpoints within an epoch.
        keep: newest checkpoints kept; one before the newest in case that is damaged.
        skip_unreadable: unreadable images of an epoch that are skipped; 0 stops at the first.
    """

    precision: str = "float32"
    wire: str = "float32"
    # TensorFlow's default, one pack of everything, leaves nothing to overlap.
    pack_mb: int = 25
    checkpoint_updates: int | None = None
    checkpoint_minutes: float = 10.0
    keep: int = 2
    skip_unreadable: int = 0

    @property
    def checkpoints(self) -> str:
        """When checkpoints are written, in words."""
        every = f"every {self.checkpoint_minutes:g} minutes"
        if self.checkpoint_updates:
            every = f"every {self.checkpoint_updates:,} updates, {every}"
        return f"{every}, at each epoch's end and when stopped; the newest {self.keep} are kept"
