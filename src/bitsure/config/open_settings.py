"""The setting `task.open`: a file of open questions, which have no right answers."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.base.errors import at_least


@dataclass
class OpenSettings:
    """The questions of the tasks open_questions and open_second_turns, which are made of a file of your own."""

    file: str | None = None  # JSON lines with `turns`, a list of what is asked one after the other, as MT-Bench's have it
    first_answers: str | None = None  # open_second_turns: the run whose full precision answered the first turns
    longest: int = 256  # tokens of an answer

    def __post_init__(self) -> None:
        at_least("task.open.longest", self.longest, 1)
