"""The parts of lm-evaluation-harness that bitsure uses, as types: the harness itself has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Document: TypeAlias = dict[str, Any]
"""One row of a data set."""

Sample: TypeAlias = Mapping[str, Any]
"""What the harness logs of one question: doc, doc_id, hashes, arguments, and the metrics it computed."""


class Instance(Protocol):
    """One request of the harness to a model."""

    args: tuple[Any, ...]
    """(context, continuation), or (text,)."""
    task_name: str
    doc_id: int
    idx: int
    """Number of the request within its question."""


class Sampler(Protocol):
    """Draws a task's few-shot examples."""

    def set_rnd(self, rnd: int) -> object:
        """Seed the drawing."""

    def sample(self, n: int, eval_doc: Any) -> Sequence[Document]:
        """Return `n` examples; documents equal to `eval_doc`, unless it is None, are left out."""

    def fewshot_docs(self) -> Sequence[Document]:
        """Return all documents that may be drawn."""


class HarnessTask(Protocol):
    """A task with its data, as the harness's TaskManager loads it."""

    OUTPUT_TYPE: str
    DATASET_PATH: str | None
    DATASET_NAME: str | None
    multiple_input: int
    """Not 0 where the choices stand before one common ending."""
    multiple_target: int
    """Not 0 where several choices may be right."""
    config: Any
    _config: Any
    """The settings themselves, which `config` returns."""
    fewshot_cfg: Any
    """How examples are written, and the split that they come from."""
    sampler: Any
    """Draws the examples; a `Sampler`."""
    _filters: Sequence[Any]
    """The harness's filters of answers, each with a name."""
    dataset: Mapping[str, Any]
    """Split → its documents."""

    @property
    def eval_docs(self) -> Sequence[Document]:
        """The documents that are scored."""

    def training_docs(self) -> Iterable[Document]:
        """Return the documents of the training split."""

    def doc_to_text(self, doc: Document, template: Any = None) -> Any:
        """Return the prompt of a document."""

    def doc_to_target(self, doc: Document, template: Any = None) -> Any:
        """Return the right choice, its index, or several of them; or the continuation."""

    def doc_to_choice(self, doc: Document, template: Any = None) -> Sequence[Any]:
        """Return the choices of a document."""

    def doc_to_prefix(self, doc: Document) -> str | None:
        """Return what the answer begins with."""

    def fewshot_context(self, doc: Document, num_fewshot: int, gen_prefix: str | None) -> Any:
        """Return the prompt of a document with examples before it."""

    def construct_requests(self, doc: Document, ctx: Any) -> Any:
        """Return the request for a document, or one for each choice."""

    def get_config(self, key: str) -> Any:
        """Return a setting of the task."""

    def set_config(self, key: str, value: Any) -> None:
        """Change a setting of the task."""

    def override_metric(self, metric_name: str) -> None:
        """Let the harness compute one of its metrics alone."""

    def set_fewshot_seed(self, seed: int) -> None:
        """Seed the drawing of few-shot examples."""

    def dump_config(self) -> dict[str, Any]:
        """Return all settings of the task."""
