"""costs.json: the cost of quantizing and of scoring when their results were made, which may have been in another run."""

from __future__ import annotations

from bitsure.results.result import Integer, Result


class WorkCosts(Result):
    """The cost of quantizing, as quantization.json has it."""

    seconds: float | None
    """Wall time of quantizing, seconds; null where it is not known."""
    peak_memory_bytes: Integer | None
    """The most memory that the process held while it quantized and verified, bytes, its libraries' too; null where it is not
    known. Weights that the store has from before the proof was counted have the peak of quantizing alone."""
    peak_gpu_memory_bytes: Integer | None
    """The most that tensors took on all GPUs meanwhile, bytes; null without one."""


class TaskCosts(Result):
    """The cost of scoring one task."""

    tokens: int
    """Tokens that were run, padding counted."""
    seconds: float
    """Wall time, seconds."""
    peak_memory_bytes: Integer | None
    """The most memory that the process held, bytes."""
    peak_gpu_memory_bytes: Integer | None
    """The most that tensors took on all GPUs, bytes; null without one."""
    tokens_per_second: float | None
    """Tokens a second; null where it took no time. Of a quantized model on a text, the time includes full precision's output
    head, and its whole passes where no states of it are kept."""


class ScoringCosts(Result):
    """The cost of scoring, over all tasks whose cost is known: those that were scored in one go."""

    seconds: float
    """Wall time, seconds, of all tasks."""
    tokens: int
    """Tokens that were run, padding counted, of all tasks."""
    peak_memory_bytes: Integer | None
    """The highest of the tasks' peaks, bytes."""
    peak_gpu_memory_bytes: Integer | None
    """The highest of the tasks' GPU peaks, bytes; null without a GPU."""
    tokens_per_second: float | None
    """Tokens a second over all tasks; compare models by tasks without a text, as `by_task` says of texts."""
    by_task: dict[str, TaskCosts]
    """Task → its costs."""


class Costs(Result):
    """costs.json."""

    quantizing: WorkCosts | None
    """Null where nothing was quantized."""
    scoring_full_precision: ScoringCosts | None
    """Null where it is not known: scoring was interrupted and resumed."""
    scoring_quantized: ScoringCosts | None
    """Null where nothing was quantized, or it is not known."""
