"""The setting `task.retrieval`: how long the texts are in which an answer is to be found, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitsure.base.errors import UserError, at_least

SHORTEST, LONGEST = 100, 500_000  # words


@dataclass
class RetrievalSettings:
    """The questions of the tasks retrieval_…, which are made on the spot: `questions` for each length and depth."""

    lengths: list[int] = field(default_factory=lambda: [128, 256, 512, 1024])  # of the texts, words
    depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])  # where the answer stands; 1: at the end
    questions: int = 10  # of each length and depth

    def __post_init__(self) -> None:
        for key in ("lengths", "depths"):
            values = getattr(self, key)
            if not values or len(set(values)) < len(values):
                raise UserError(f"task.retrieval.{key}={values}: give one value or more, each once.")
        if not all(SHORTEST <= length <= LONGEST for length in self.lengths):
            raise UserError(f"task.retrieval.lengths={self.lengths}: each must be {SHORTEST} to {LONGEST:,} words.")
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise UserError(f"task.retrieval.depths={self.depths}: each must be from 0, the beginning, to 1, the end.")
        at_least("task.retrieval.questions", self.questions, 1)
