"""How much of a run's text and questions is measured, so that all passes together cost what a few scorings do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from bitsure.base.errors import UserError
from bitsure.config.schema import AttributionSettings
from bitsure.scoring.attribution.asked_questions import AskedQuestion, numbered
from bitsure.scoring.attribution.model_pair import ModelPair, ModelPart
from bitsure.scoring.local.forward import score_plain
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.local.trial import RunBatch
from bitsure.scoring.requests import Requests
from bitsure.scoring.texts.tokenized_text import TextWindow

NOTHING = (
    "attribution.measure=true: no task has choices and no text is scored, so that there is nothing to attribute a loss on. Add "
    "text=…, such as text=wikitext2, or a task with choices."
)
T = TypeVar("T")

FEWEST = 16  # windows of a text that are sampled, where it has as many: they are what intervals resample
SHORTEST, LONGEST = 32, 128  # tokens of a window that are run
QUESTION_TOKENS = 2048  # of a batch of questions
REFERENCES = 2  # whole passes of both models
CHECKS = 2  # whole passes more on the text: of full precision again, and of the model with layers in more bits


@dataclass(frozen=True)
class Work:
    """Passes over some tokens."""

    tokens: int
    """Tokens that go through the blocks."""
    scored: int
    """Tokens that the head is applied to."""


@dataclass(frozen=True)
class PassCosts:
    """What the passes of an attribution cost beside one scoring, in multiplications a token.

    Attributes:
        blocks: Of all blocks.
        head: Of the output head.
        text: Passes over the text's sample: through what share of the blocks in all, and how often the head.
        questions: Passes over the sampled questions, likewise.
    """

    blocks: int
    head: int
    text: tuple[float, int]
    questions: tuple[float, int]

    @classmethod
    def of(cls, pair: ModelPair) -> PassCosts:
        """Return the costs of a pair of models."""
        config = pair.full.config.get_text_config()
        head = int(config.vocab_size) * int(config.hidden_size)
        both, alone = (_passes(parts, pair.n_blocks) for parts in (pair.parts, pair.layers))
        text = 2 * both[0] + alone[0] + REFERENCES + CHECKS, 2 * both[1] + alone[1] + REFERENCES + CHECKS
        return cls(pair.block_parameters, head, text, (2 * both[0] + REFERENCES, 2 * both[1] + REFERENCES))

    def scoring(self, work: Work) -> float:
        """Return what scoring costs."""
        return work.tokens * self.blocks + work.scored * self.head

    def on_text(self, work: Work) -> float:
        """Return what all passes over a sample of the text cost."""
        return work.tokens * self.blocks * self.text[0] + work.scored * self.head * self.text[1]

    def on_questions(self, work: Work) -> float:
        """Return what all passes over sampled questions cost."""
        return work.tokens * self.blocks * self.questions[0] + work.scored * self.head * self.questions[1]


def _passes(parts: Sequence[ModelPart], n_blocks: int) -> tuple[float, int]:
    """Return how many passes one model of each part makes, those that begin later as their share, and their number."""
    return sum((n_blocks - part.first) / n_blocks for part in parts), len(parts)


@dataclass(frozen=True)
class Sample:
    """What is measured.

    Attributes:
        windows: Windows of the text.
        questions: Questions.
        requests: Their requests by number, question after question.
        run: Runs a batch of these.
        batches: The batches.
        scorings: What all passes cost, in scorings of the run's text and questions by one model.
    """

    windows: Sequence[TextWindow]
    questions: Sequence[AskedQuestion]
    requests: Requests
    run: RunBatch
    batches: Sequence[Sequence[TreeRow]]
    scorings: float


def choose_sample(
    pair: ModelPair,
    windows: Sequence[TextWindow],
    are_scored: bool,
    questions: Sequence[AskedQuestion],
    engine: LocalEngine,
    settings: AttributionSettings,
) -> Sample:
    """Return the sample: all passes over it cost at most `settings.scorings` times what scoring the text and questions does.

    Text and questions have the shares of their own scoring. Held-out text, which no run scores, has half of the questions'.

    Args:
        pair: The models.
        windows: The windows of the text.
        are_scored: Whether the run scores them.
        questions: The run's questions with choices.
        engine: Lays out requests in batches.
        settings: How much is measured.

    Raises:
        UserError: If there is neither scored text nor a question.
    """
    costs = PassCosts.of(pair)
    of_text = costs.scoring(Work(_tokens(windows), sum(len(window.scored) for window in windows))) if are_scored else 0.0
    of_questions = costs.scoring(_work_of(_lay_out(engine, questions)))
    most_text, most_questions = settings.scorings * of_text, settings.scorings * of_questions
    if not are_scored:
        most_text = most_questions = most_questions / 2
    if not of_text and not of_questions:
        raise UserError(NOTHING)
    some_windows = _sample_windows(windows, costs, most_text, settings.tokens)
    laid_out = _sample_questions(questions, engine, costs, most_questions, settings.questions)
    tokens = _tokens(some_windows)
    work = costs.on_text(Work(tokens, tokens)) + costs.on_questions(_work_of(laid_out))
    return replace(laid_out, windows=some_windows, scorings=work / (of_text + of_questions))


def _lay_out(engine: LocalEngine, questions: Sequence[AskedQuestion]) -> Sample:
    """Return questions with their batches, and no windows."""
    requests = numbered(questions)
    run, batches = engine.lay_out(requests, QUESTION_TOKENS) if requests else (score_plain, [])
    return Sample([], questions, requests, run, batches, 0.0)


def _work_of(sample: Sample) -> Work:
    """Return the work of a pass over the questions, padding counted."""
    tokens = sum(len(batch) * len(batch[0]) for batch in sample.batches)
    return Work(tokens, sum(len(continuation) for _, continuation in sample.requests.values()))


def _sample_questions(
    questions: Sequence[AskedQuestion], engine: LocalEngine, costs: PassCosts, most_cost: float, most: int
) -> Sample:
    """Return questions evenly spread over the tasks, with their batches; at least one, if there are any."""
    n = min(most, len(questions))
    while True:
        laid_out = _lay_out(engine, _spread(questions, n))
        cost = costs.on_questions(_work_of(laid_out))
        if cost <= most_cost or n <= 1:
            return laid_out
        n = max(1, min(n - 1, int(n * most_cost / cost)))


def _sample_windows(
    windows: Sequence[TextWindow], costs: PassCosts, most_cost: float, most_tokens: int
) -> Sequence[TextWindow]:
    """Return the beginnings of windows evenly spread over a text: FEWEST of them rather than long ones; at least one."""
    fitting = min(most_tokens, int(most_cost / costs.on_text(Work(1, 1))))
    length = min(LONGEST, max(SHORTEST, fitting // FEWEST))
    beginnings = [_cut(window, length + 1) for window in windows]
    low, high = 1, len(beginnings)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _tokens(_spread(beginnings, middle)) <= fitting
        low, high = (middle, high) if fits else (low, middle - 1)
    return _spread(beginnings, low)


def _spread(items: Sequence[T], n: int) -> list[T]:
    """Return n items, each from the middle of one of n equal parts."""
    return [items[int(place)] for place in (np.arange(n) + 0.5) * len(items) / max(1, n)]


def _cut(window: TextWindow, length: int) -> TextWindow:
    """Return the beginning of a window; all tokens before the first scored one are kept, and one scored token."""
    length = max(length, window.first_scored + 1)
    n = length - window.first_scored
    return replace(
        window,
        tokens=window.tokens[:length],
        documents=window.documents[:n],
        positions=window.positions[:n],
        n_bytes=window.n_bytes[:n],
        tasks=None if window.tasks is None else window.tasks[:n],
    )


def _tokens(windows: Sequence[TextWindow]) -> int:
    """Return how many tokens go through the blocks."""
    return sum(len(window) - 1 for window in windows)
