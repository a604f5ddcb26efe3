"""How much memory this process may still take."""

from pathlib import Path

# Linux's own account, and the folder of a container's limits (version 2).
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
RECLAIMABLE = "inactive_file"  # cached pages that a container gives back


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Returns what the machine, and the container around it, has left; None where none says."""
    found = [_machine(meminfo), _container(cgroup)]
    return min((one for one in found if one is not None), default=None)


def gigabytes(count: float) -> str:
    """Returns bytes in words."""
    return f"{count / 1e9:.1f} GB"


def _machine(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _container(folder: Path) -> int | None:
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith(RECLAIMABLE))
    except (OSError, StopIteration, ValueError, IndexError):
        return None  # no container, or one without a limit ("max")
    return max(limit - used + cached, 0)
