"""The answers that a model wrote, as a text: what any model makes of each of their tokens after the same beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.memo import Memo
from bitsure.config.schema import TaskSettings
from bitsure.config.text import OF_ANSWERS
from bitsure.hub.repositories import Origin
from bitsure.models.locate import Source
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scorer import Scorer
from bitsure.scoring.texts.task_prompts import collecting_lm
from bitsure.scoring.texts.text_source import BOS_OF_TASKS, TextOfTasks
from bitsure.scoring.texts.token_stream import bytes_of_tokens
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText


@dataclass(frozen=True)
class WrittenText(TextOfTasks):
    """The answers that a model wrote to a run's questions, a window each, of which the answer's tokens are scored.

    A task's answers are the text `text/<task>/written`. Of several answers to a question it is the first.

    Attributes:
        scorer: What scores the run's tasks.
        writer: The model that wrote them; None for full precision.
    """

    scorer: Scorer
    writer: ScoredModel | None = None
    protocol: ClassVar = OF_ANSWERS

    @property
    @override
    def needs_answers(self) -> bool:
        return True

    @property
    @override
    def keeps_states(self) -> bool:
        return self.writer is None

    @property
    @override
    def origin(self) -> Origin:
        return {"commit": None, "unknown": "a model wrote it; the tasks' data stands under data"}

    @override
    def identity(self, source: Source) -> dict[str, object]:
        return {"name": OF_ANSWERS, "sha256": hash_json(self.scorer.kept.keys(self._writer(source)))}

    @override
    def cut(self, source: Source, memo: Memo) -> TokenizedText:
        writer, task = self._writer(source), self.scorer.questions.task
        windows = cut_answers(self.scorer.kept.generations(writer).to_pylist(), self.scorer.kept.prompts(writer), source, task)
        if not windows:
            raise UserError(
                f"text=written: none of the tasks {', '.join(task.names)} has answers that are written. Leave it out."
            )
        return TokenizedText(tuple(sorted(windows, key=len)), max(map(len, windows)), None, BOS_OF_TASKS)

    def _writer(self, source: Source) -> ScoredModel:
        return self.writer or ScoredModel(source)


def cut_answers(
    answers: Sequence[Mapping[str, Any]], prompts: Mapping[tuple[str, int], str], source: Source, settings: TaskSettings
) -> list[TextWindow]:
    """Return a window for the first answer to each question: what the model had read, and the answer, which is scored.

    Questions of one cluster are one document, whose number is that of its first question.

    Args:
        answers: Rows under `bitsure.records.generations.GENERATIONS_SCHEMA`.
        prompts: (task, doc_id) → the prompt.
        source: The model.
        settings: How the questions were put.
    """
    lm = collecting_lm(source, settings)
    windows, documents = [], dict[tuple[str, str], int]()
    for row in answers:
        if row["sample"] > 0:
            continue
        task, doc_id, tokens = row["task"], row["doc_id"], row["tokens"]
        prompt, n = lm.prompt_tokens(prompts[task, doc_id])[-row["prompt_tokens"] :], len(tokens)
        windows.append(
            TextWindow(
                np.array([*prompt, *tokens]),
                len(prompt),
                np.full(n, documents.setdefault((task, row["cluster"]), doc_id)),
                np.arange(n),
                bytes_of_tokens(tokens, row["text"], lm.tokenizer),
                np.repeat(f"text/{task}/{OF_ANSWERS}", n),
            )
        )
    return windows
