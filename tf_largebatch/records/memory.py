"""How much memory this process may still take."""

import contextlib
from pathlib import Path

# Linux's own account, and the folder of a container's limits (version 2).
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
RECLAIMABLE = "inactive_file"  # cached pages that a container gives back
_UNKNOWN = (OSError, StopIteration, ValueError, IndexError)


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Returns what the machine, and the container around it, has left; None where none says."""
    left = []
    with contextlib.suppress(*_UNKNOWN):
        left.append(1024 * _entry(meminfo, "MemAvail"))
    with contextlib.suppress(*_UNKNOWN):  # no container, or one without a limit ("max")
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        left.append(max(limit - used + _entry(cgroup / "memory.stat", RECLAIMABLE), 0))
    return min(left, default=None)


def _entry(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def gigabytes(count: float) -> str:
    """Returns bytes in words."""
    return f"{count / 1e9:.1f} GB"
