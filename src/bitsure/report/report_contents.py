"""What a run's report holds: what is given about the run, and what was computed and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitsure.comparison.changes import AnswerChanges
from bitsure.records.record import Records
from bitsure.report import rounded
from bitsure.report.charts import Pictures
from bitsure.report.samples import ChangedQuestion
from bitsure.report.served_sentences import served_lines
from bitsure.results import (
    Attribution,
    Comparison,
    Compressibility,
    Labels,
    MetricsByTask,
    Provenance,
    PublishedNumber,
    Quantization,
    Verdict,
)


def run_title(labels: Labels, quantizer: str | None) -> str:
    """Return what a run is about: its model, and its quantizer as the command calls it, with the full name if that differs.

    Args:
        labels: What the command calls them.
        quantizer: The quantizer's full name; None in full precision.
    """
    if quantizer is None:
        return f"{labels.model}, full precision"
    full_name = "" if quantizer == labels.quantizer else f" ({quantizer})"
    return f"{labels.model}, {labels.quantizer}{full_name}"


@dataclass(frozen=True)
class About:
    """What a report says of its run besides the numbers."""

    title: str
    quantization: Quantization | None = None
    provenance: Provenance | None = None
    prompts: Mapping[tuple[str, int], str] | None = None  # (task, doc_id) → prompt
    baseline_bits: float | None = None  # of a weight of a baseline that is quantized too; None: full precision
    noisy: Sequence[Records] = ()  # the noise control's records, one table for each seed
    noise_scale: float = 1.0  # the noise's output error ÷ the quantizer's
    compressibility: Compressibility | None = None
    attribution: Attribution | None = None
    task: dict[str, Any] | None = None  # the run's task settings
    tracked: str | None = None  # the W&B run's address, or the command that sends it
    has_page: bool = True  # whether figures are drawn and the page is written
    started: float | None = None  # when the run started, seconds since 1970; None where the page is made by the run itself

    @property
    def labels(self) -> Labels | None:
        """What the run's command calls its model and quantizer; None if that is not known."""
        return self.provenance.labels if self.provenance else None

    @property
    def checkpoint(self) -> str | None:
        """The directory of the quantized checkpoint; None in full precision, and where it is not known."""
        return self.quantization.checkpoint if self.quantization else None

    @property
    def checkpoint_in_words(self) -> str | None:
        """The same, and whether only bitsure can run it."""
        return rounded.checkpoint(self.quantization) if self.quantization else None

    @property
    def first_lines(self) -> list[str]:
        """What was rounded, what servers ran, and how many questions were asked where a limit was set."""
        model = self.provenance.model if self.provenance else None
        lines = [rounded.summary(self.quantization, model)] if self.quantization else []
        return [*lines, *served_lines(self.provenance), *filter(None, [rounded.questions_asked(self.provenance)])]


@dataclass(frozen=True)
class Report:
    """The results of one run and the files that show them."""

    metrics: MetricsByTask
    baseline_metrics: MetricsByTask | None
    comparison: Comparison | None
    verdict: Verdict | None
    published: list[PublishedNumber]  # numbers from papers beside those of this run
    changes: dict[str, AnswerChanges]  # task → what quantization changed in each question; empty without a baseline
    changed_most: dict[str, list[ChangedQuestion]] | None
    figures: Pictures
    page: Path

    def moved_to(self, directory: Path) -> Report:
        """Return the same report, whose files have been moved to another directory."""
        here = self.page.parent
        pictures = {
            kind: {
                task: replace(drawn, path=drawn.path and directory / drawn.path.relative_to(here))
                for task, drawn in charts.items()
            }
            for kind, charts in self.figures.items()
        }
        return replace(self, figures=pictures, page=directory / self.page.name)
