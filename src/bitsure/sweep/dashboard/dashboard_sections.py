"""What a dashboard shows: the questions that users have, each with the panel that answers it. docs/wandb.md lists them."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.report.figures import CONFIDENCE, DEFERRED
from bitsure.run.tracked_charts import FOREST
from bitsure.sweep.dashboard.panel import Bars, Charts, Columns, DashboardPanel, Pages, Scatter, Tables


@dataclass(frozen=True)
class DashboardSection:
    """Panels that belong together.

    Attributes:
        title: Its heading.
        of_sweep: Whether it is about the sweep's summary run; otherwise about the cells' runs.
        shown: Its panels.
    """

    title: str
    of_sweep: bool
    shown: tuple[DashboardPanel, ...]


BITS, BYTES, CODED = "quantization/bits_per_weight", "quantization/bytes", "quantization/bits_per_weight_coded"
PARAMETERS = "config.provenance.model.parameters"
SECTIONS = (
    DashboardSection(
        "The sweep",
        True,
        (
            Columns("What may be shipped?", ("sweep/choice",)),
            Columns("Is it complete?", ("sweep/cells", "sweep/done", "sweep/not_done")),
            Charts("What does each bit buy?", ("sweep/bits_true_label_prob", "sweep/bits_accuracy"), "bits per weight"),
            Charts(
                "How do numbers go with size?",
                (
                    "sweep/scale_true_label_prob",
                    "sweep/scale_accuracy",
                    "sweep/scale_expected_calibration_error",
                    "sweep/scale_confidence",
                ),
                "parameters",
            ),
            Tables("What is each cell's verdict?", ("sweep/verdicts",)),
            Tables("What are the numbers?", ("sweep/table",)),
            Pages("What does the whole sweep look like?", ("sweep/report",)),
        ),
    ),
    DashboardSection(
        "What quantization costs",
        False,
        (
            Columns("May it be shipped?", ("verdict", "verdict_sentence", "verdict_settles")),
            Columns("Which quantizer is it?", ("config.method", "config.preset", "config.bits")),
            Bars("What changes?", ("true_label_prob/mean/change", "accuracy/mean/change", "nll/mean/change")),
            Bars("How many answers change?", ("flip_rate/mean", "kl_divergence/mean")),
            Bars("On which task?", ("true_label_prob/<task>/change", "accuracy/<task>/change")),
            Charts("How far from the margins?", ("forest/accuracy", "forest/true_label_prob", "forest/nll"), preset=FOREST),
        ),
    ),
    DashboardSection(
        "What size buys",
        False,
        (
            Scatter("What does a bit buy?", (BITS, "true_label_prob/mean/change", "accuracy/mean/change")),
            Scatter("What does a byte buy?", (BYTES, "true_label_prob/mean", "accuracy/mean")),
            Scatter("What does a larger model buy?", (PARAMETERS, "true_label_prob/mean"), log_x=True),
            Scatter("Is the cheapest to load the least sure?", (CODED, "confidence/mean", "expected_calibration_error/mean")),
            Columns("What was rounded, and how far?", (BITS, "quantization/relative_error", BYTES)),
            Columns("Where is the model?", ("config.checkpoint",)),
        ),
    ),
    DashboardSection(
        "Confidence",
        False,
        (
            Charts("Does confidence match accuracy?", ("reliability/<task>",), CONFIDENCE),
            Bars("Is it calibrated?", ("expected_calibration_error/mean", "expected_calibration_error/mean/change")),
            Bars("How sure is it?", ("confidence/mean", "confidence/mean/change")),
            Charts("Does asking full precision when unsure help?", ("deferral/<task>",), DEFERRED),
        ),
    ),
    DashboardSection(
        "Texts",
        False,
        (
            Bars("How well does it predict running text?", ("perplexity/<task>",)),
            Bars("What does quantization add?", ("perplexity/<task>/change",)),
            Bars("How far do its probabilities move?", ("kl_divergence/<task>",)),
        ),
    ),
    DashboardSection(
        "Questions and runs",
        False,
        (
            Tables("Which questions changed?", ("samples",)),
            Tables("What are all numbers?", ("numbers",)),
            Pages("What does a run look like?", ("report",)),
        ),
    ),
    DashboardSection(
        "What it takes",
        False,
        (
            Bars("What does quantizing take?", ("costs/quantizing/seconds", "costs/quantizing/peak_memory_bytes")),
            Bars(
                "How fast is scoring?",
                ("costs/scoring_quantized/tokens_per_second", "costs/scoring_full_precision/tokens_per_second"),
            ),
            Bars("What memory does scoring take?", ("costs/scoring_quantized/peak_memory_bytes",)),
        ),
    ),
)


def questions_table() -> str:
    """Return the table of docs/wandb.md, in Markdown."""
    lines = ["| section | question | panel | keys |", "|---|---|---|---|"]
    for section in SECTIONS:
        for shown in section.shown:
            keys = ", ".join(f"`{key}`" for key in shown.keys)
            lines.append(f"| {section.title} | {shown.question} | {shown.kind} | {keys} |")
    return "\n".join(lines)
