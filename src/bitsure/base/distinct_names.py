"""Short names of folders that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct_names(directories: Sequence[Path]) -> list[str]:
    """Return the directories' names, each with as many of its parents as it takes to tell them apart.

    The same directory, given twice, has one name.
    """
    parts = [directory.absolute().parts for directory in directories]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(directory.absolute()) for directory in directories]
