"""The interface of what is scored token by token: a file's text, or the prompts and answers of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from typing_extensions import override

from bitsure.base.memo import Memo
from bitsure.hub.repositories import Origin
from bitsure.models.locate import Source
from bitsure.results.run_files import TextOrigin
from bitsure.scoring.texts.tokenized_text import TokenizedText

BOS_OF_TASKS = "as each task's prompts have it"  # of texts that are of tasks


class TextSource(ABC):
    """What is scored, and how it is cut into windows."""

    @property
    @abstractmethod
    def task(self) -> str:
        """What metrics.json calls the text, unless its windows name several."""

    @property
    def needs_answers(self) -> bool:
        """Whether it can be cut only after full precision has written its answers."""
        return False

    @property
    def keeps_states(self) -> bool:
        """Whether full precision's states are kept, since quantized models are compared with it on this text."""
        return True

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Where its files came from, for provenance.json."""

    @property
    @abstractmethod
    def libraries(self) -> tuple[str, ...]:
        """The libraries, besides the model's own, whose versions may change its windows."""

    @abstractmethod
    def identity(self, source: Source) -> dict[str, object]:
        """Return what identifies the text and its windows in the key of scores, under `sha256` its content.

        Args:
            source: The full-precision model, whose tokenizer and context the windows follow.

        Raises:
            UserError: If the model cannot read the windows that are asked for.
        """

    @abstractmethod
    def cut(self, source: Source, memo: Memo) -> TokenizedText:
        """Return the windows; the memo has those of other cells with the same text and tokenizer.

        Raises:
            UserError: If the text cannot be read, or is too short.
        """

    @abstractmethod
    def describe(self, source: Source, cut: TokenizedText) -> TextOrigin:
        """Return what was scored and how, for provenance.json."""


class TextOfTasks(TextSource):
    """A text that a run's tasks make; it has no file of its own."""

    protocol: ClassVar[str]
    """What the option `text` calls it."""

    @property
    @override
    def task(self) -> str:
        return f"text/{self.protocol}"

    @property
    @override
    def libraries(self) -> tuple[str, ...]:
        return ("lm_eval", "datasets")

    @override
    def describe(self, source: Source, cut: TokenizedText) -> TextOrigin:
        return TextOrigin(
            task=self.task,
            protocol=self.protocol,
            window=cut.window,
            stride=None,
            limit=None,
            bos=cut.bos,
            windows=len(cut.windows),
            tokens=cut.n_scored,
            sha256=str(self.identity(source)["sha256"]),
            origin=dict(self.origin),
        )
