"""Where the committed records are: in the clone, or copied into the wheel."""

from pathlib import Path

CLONE = Path(__file__).parents[2]
WHEEL = Path(__file__).with_name("committed")  # setup.py puts it there


def committed(folder: str) -> Path:
    """Returns the place of a folder of the repository that holds records.

    Args:
        folder: "recipes" or "docs/claims".
    """
    return (WHEEL if WHEEL.is_dir() else CLONE) / folder
