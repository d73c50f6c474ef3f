"""Render report.html: one file that opens from disk without a network, is whole without its script, and escapes all text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.comparison.verdict_words import verdict_details
from bitsure.config.metric import MetricSettings
from bitsure.metrics.deferral import FULL_BITS, cost_of_quantized
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.full_thresholds import COVERAGE_AT_FULL_THRESHOLD
from bitsure.metrics.metric_names import MACRO
from bitsure.report import compressibility_table, page_summary, published_table, rounded, tables
from bitsure.report.attribution_section import attribution_section
from bitsure.report.divergence_section import divergence_sentences
from bitsure.report.expert_sentences import expert_sentences
from bitsure.report.fidelity_section import fidelity_section
from bitsure.report.metric_labels import metric_label
from bitsure.report.page_environment import page_template
from bitsure.report.retrieval_section import retrieval_sections
from bitsure.report.threshold_sentences import threshold_sentences
from bitsure.report.tracked_run import ADDRESS
from bitsure.report.twin_sentences import twin_sentences
from bitsure.results import Provenance, Quantization, to_plain

if TYPE_CHECKING:
    from bitsure.report.report_contents import About, Report

LARGEST = 5_000_000  # bytes of a page
# what a page of very many tasks leaves out, the first thing first, and where it is instead
DISPENSABLE = {
    "risk_coverage": "risk–coverage curves (in figures/)",
    "deferral": "deferral curves (in figures/)",
    "attribution": "the heat map of layers (in figures/)",
    "fidelity": "KL divergence by confidence (in figures/)",
    "retrieval": "heat maps of length × depth (in figures/)",
    "divergence": "where written answers part, by margin (in figures/)",
    "shift": "harm and instability by certainty (in figures/)",
    "confidence_shift": "shifts by confidence (in figures/)",
    "samples": "the questions that changed most (in records.parquet and baseline.parquet)",
    "numbers": "all numbers besides the headline (in comparison.json, metrics.json and baseline_metrics.json)",
    "reliability": "reliability diagrams (in figures/)",
}


def render(report: Report, about: About, metric: MetricSettings) -> str:
    """Return the page's HTML, without as many DISPENSABLE parts, which it names, as stay below LARGEST bytes demands.

    It is larger if what is left is.
    """
    for n in range(len(DISPENSABLE) + 1):
        html = _render(report, about, metric, tuple(DISPENSABLE)[:n])
        if len(html.encode()) < LARGEST:
            break
    return html


def _render(report: Report, about: About, metric: MetricSettings, without: Collection[str]) -> str:
    return page_template("bitsure.report", "page.html").render(
        title=about.title,
        first_lines=about.first_lines,
        summary=page_summary.sentences(report.comparison, metric.alpha),
        unjoined=tables.unjoined(report.comparison) if report.comparison else [],
        label=metric_label,
        macro=MACRO,
        alpha=f"{metric.alpha:g}",
        without=[DISPENSABLE[part] for part in without],
        level=metric.confidence_level,
        normalization=metric.normalization,
        fewest=FEWEST,
        contents=[],
        facts=_head_facts(about),
        figures={kind: {} if kind in without else charts for kind, charts in report.figures.items()},
        changed=None if "samples" in without else report.changed_most,
        loading=compressibility_table.section(about.compressibility) if about.compressibility else None,
        quantization=_facts(about.quantization) if about.quantization else None,
        provenance=_origin(about.provenance) if about.provenance else None,
        thresholds=_thresholds(report),
        twins=twin_sentences(report.metrics, report.comparison),
        fidelity=fidelity_section(report.comparison),
        attribution=attribution_section(about.attribution, about.labels) if about.attribution else None,
        retrieval=retrieval_sections(report.metrics, report.comparison),
        divergence=divergence_sentences(report.comparison),
        experts=expert_sentences(about.quantization.experts if about.quantization else None),
        **_verdict(report),
        **_numbers(report, metric.confidence_level, "numbers" not in without),
        **_published(report),
        **_cost(metric, about),
    )


def _verdict(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "verdict_details": verdict_details(report.verdict) if report.verdict else {},
        "noise_control": bool(report.verdict and report.verdict.noise_control),
    }


def _thresholds(report: Report) -> list[str]:
    """Return what quantizing does to thresholds, of the tasks with choices."""
    tasks = (report.comparison or {}).items()
    with_choices = {task: values for task, values in tasks if task != MACRO and COVERAGE_AT_FULL_THRESHOLD in values}
    return [sentence for task, values in with_choices.items() for sentence in threshold_sentences(task, values)]


def _numbers(report: Report, level: float, everything: bool) -> dict[str, Any]:
    """Return the tables of numbers: the headline, and every number if asked for."""
    comparison = report.comparison
    alone = {"Full precision": report.metrics}
    if comparison and report.baseline_metrics:
        alone = {"Quantized": report.metrics, "Full precision": report.baseline_metrics}
    return {
        "headline": tables.comparison_rows(comparison, tables.HEADLINE) if comparison else None,
        "compared": tables.comparison_rows(comparison) if comparison and everything else None,
        "compared_columns": tables.comparison_columns(level),
        "alone": {name: tables.metric_rows(metrics) for name, metrics in alone.items() if everything},
        "alone_columns": tables.metric_columns(level),
    }


def _published(report: Report) -> dict[str, Any]:
    return {
        "published": published_table.rows(report.published),
        "published_heading": published_table.HEADING,
        "published_columns": published_table.COLUMNS,
        "published_notes": published_table.notes(report.published),
    }


def _head_facts(about: About) -> list[tuple[str, str, str | None]]:
    """Return what stands below the verdict: name, value, and where that leads."""
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    facts: list[tuple[str, str, str | None]] = [("page made" if about.started else "made", written, None)]
    if about.started:
        facts.insert(0, ("run on", f"{datetime.fromtimestamp(about.started, UTC):%Y-%m-%d}", None))
    if about.checkpoint:
        place = Path(about.checkpoint)
        facts.append(("checkpoint", about.checkpoint, place.as_uri() if place.is_absolute() else None))
        if note := (about.checkpoint_in_words or "").removeprefix(about.checkpoint):
            facts.append(("", note.strip(" ()"), None))
    if about.tracked:
        facts.append(("W&B", about.tracked, about.tracked if about.tracked.startswith(ADDRESS) else None))
    return facts


def _cost(metric: MetricSettings, about: About) -> dict[str, Any]:
    """Return the assumed cost of a quantized answer, and where it comes from."""
    bits, baseline_bits = about.quantization.bits_per_weight if about.quantization else None, about.baseline_bits
    full = f"{baseline_bits:.2f}" if baseline_bits else FULL_BITS
    source = f"its {bits:.2f} bits per weight of {full}" if bits else "a guess: its bits are unknown"
    if metric.quantized_cost is not None:
        source = "metric.quantized_cost"
    return {"quantized_cost": cost_of_quantized(metric.quantized_cost, bits, baseline_bits), "cost_source": source}


def _facts(quantization: Quantization) -> dict[str, str]:
    skipped = ", ".join(f"{name} ({reason})" for name, reason in quantization.modules_skipped.items())
    groups = ", ".join(f"{size} in {count} layers" for size, count in quantization.group_sizes.items())
    errors = {name: layer.output_error for name, layer in quantization.layers.items()}
    worst = max(errors, key=errors.__getitem__, default=None)
    facts = {
        "Checkpoint": rounded.checkpoint(quantization) or "not known",
        "Bits per weight, scales and zero points included": f"{quantization.bits_per_weight:.3f}",
        "Share of the parameters": f"{quantization.parameter_share:.1%}",
        "Relative error of the weights": f"{quantization.relative_error:.4f}"
        if quantization.modules_quantized
        else "not rounded",
        "Layer with the largest output error on held-out text": "none" if worst is None else f"{worst}: {errors[worst]:.4f}",
        "Weights that share a scale": groups,
        "Kept in full precision": skipped or "nothing",
    }
    for name, states in {"Activations": quantization.activations, "Keys and values": quantization.keys_and_values}.items():
        if states and states.errors:
            worst = max(states.errors, key=states.errors.__getitem__)
            facts[name] = f"{states.format}, {states.bits} bits; largest error {states.errors[worst]:.4f} in {worst}"
    if types := quantization.tensor_types:
        facts["Types of the GGUF file's tensors"] = ", ".join(
            f"{name} ({len(kind.tensors)} tensors of {kind.bits_per_weight:.4g} bits a weight)" for name, kind in types.items()
        )
    if (text := quantization.calib_data) and text.windows:
        facts["Calibration text"] = f"{text.name}, {text.windows} windows of {text.seqlen} tokens"
    return facts


def _origin(provenance: Provenance) -> dict[str, str]:
    """Return what is known of a run's origin, by names in words: the command as it is typed, pairs as `name: value`."""
    facts = {}
    for key, value in to_plain(provenance).items():
        if key == "command":
            facts[key] = shlex.join(value)
        elif isinstance(value, dict):
            pairs = (f"{name}: {_plain(inner)}" for name, inner in value.items() if inner not in (None, {}))
            facts[key.replace("_", " ")] = ", ".join(pairs)
        else:
            facts[key.replace("_", " ")] = _plain(value)
    return {key: text for key, text in facts.items() if text not in ("", "null")}


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
