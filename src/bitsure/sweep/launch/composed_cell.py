"""A cell of a sweep as its command composes it, and the errors of many."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from bitsure.config.schema import Config
from bitsure.results import Labels

MOST_NAMED = 8  # cells in an error message


@dataclass(frozen=True)
class ComposedCell:
    """A cell of a sweep: its number from 0, what its command changes, where it writes, and its settings."""

    number: int
    overrides: list[str]
    directory: Path
    config: Config
    labels: Labels

    @property
    def name(self) -> str:
        """Model and quantizer, by their full names."""
        return f"{self.config.model.name} {self.config.quant.name}"


@dataclass
class CellErrors:
    """Errors of a sweep's cells. The same error of many cells is one."""

    numbers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, *messages: str) -> None:
        """Note what is wrong with a cell."""
        for message in messages:
            self.numbers[message].append(number)

    def lines(self) -> list[str]:
        """Return each error with the numbers of its cells, in front."""
        return [f"{_numbers(numbers)}: {message}" for message, numbers in self.numbers.items()]


def _numbers(numbers: list[int]) -> str:
    """Return which cells are meant, counted from 1 as their lines in the terminal are."""
    shown = ", ".join(str(number + 1) for number in numbers[:MOST_NAMED])
    if len(numbers) == 1:
        return f"cell {shown}"
    return f"{len(numbers)} cells ({shown}{' …' if len(numbers) > MOST_NAMED else ''})"
