"""What quantization changed in each question of a sweep's cells, read once for contrasts and for the choice."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitsure.comparison.changes import AnswerChanges, QuestionIds, read_changes
from bitsure.metrics.arrays import IntArray


@dataclass(frozen=True)
class AnswerLosses:
    """Which of one task's n questions a quantized model lost or won; a byte a question.

    Attributes:
        question: The question's number, the same in every run that was asked it, shape (n,).
        cluster: Its cluster, shape (n,), from 0; None where every question is alone.
        loss: Full precision right (1 or 0) − quantized right, shape (n,).
    """

    question: QuestionIds
    cluster: IntArray | None
    loss: npt.NDArray[np.int8]


class CellChanges:
    """Reads changes.parquet of cells, and keeps the losses of accuracy of what it has read."""

    def __init__(self) -> None:
        self._losses: dict[tuple[Path, str], AnswerLosses] = {}
        self._questions: dict[bytes, tuple[QuestionIds, IntArray | None]] = {}  # nearly all cells have the same

    def read(self, directory: Path, task: str) -> AnswerChanges:
        """Read what one task's questions changed by.

        Raises:
            UserError: If the file is missing or cannot be read.
        """
        changes = read_changes(directory / "changes.parquet", task)
        clusters = b"" if changes.cluster is None else changes.cluster.tobytes()
        key = sha256(changes.question.tobytes() + clusters).digest()
        question, cluster = self._questions.setdefault(key, (changes.question, changes.cluster))
        losses = np.negative(changes.values["accuracy"]).astype(np.int8)
        self._losses[directory, task] = AnswerLosses(question, cluster, losses)
        return changes

    def losses(self, directory: Path, task: str) -> AnswerLosses:
        """Return which of one task's answers a cell lost, from the file unless it was read before.

        Raises:
            UserError: If the file is missing or cannot be read.
        """
        if (directory, task) not in self._losses:
            self.read(directory, task)
        return self._losses[directory, task]
