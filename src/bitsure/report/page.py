"""report.html: one file that opens from disk, needs no script and no network, and escapes all text."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from importlib.resources import files
from typing import TYPE_CHECKING

from bitsure.comparison import verdict
from bitsure.comparison.compare import CLUSTER_ROBUST, was_compared
from bitsure.config.schema import MetricSettings
from bitsure.metrics.deferral import FULL_BITS, cost_of_quantized
from bitsure.metrics.measure import MACRO
from bitsure.report import compressibility_table as compressibility
from bitsure.report import published_table, tables
from bitsure.report.samples import Changed
from bitsure.results import Comparison, Difference

if TYPE_CHECKING:
    from bitsure.report.run_report import About, Report


LARGEST = 5_000_000  # bytes of a page
# what a page of very many tasks does without, the first thing first, and where it is then
DISPENSABLE = {
    "risk_coverage": "the risk–coverage curves are in figures/",
    "deferral": "the deferral curves are in figures/",
    "shift": "harm and instability by certainty are in figures/",
    "samples": "the questions that changed most have to be looked up in records.parquet and baseline.parquet",
    "numbers": "every number is in comparison.json, metrics.json and baseline_metrics.json",
    "reliability": "the reliability diagrams are in figures/",
}


def render(report: Report, about: About, changed: dict[str, list[Changed]] | None, metric: MetricSettings) -> str:
    """The page as a string. It keeps under LARGEST, and says what it does without for that."""
    for n in range(len(DISPENSABLE) + 1):
        html = _render(report, about, changed, metric, tuple(DISPENSABLE)[:n])
        if len(html.encode()) < LARGEST:
            break
    return html


def _render(
    report: Report, about: About, changed: dict[str, list[Changed]] | None, metric: MetricSettings, without: Collection[str]
) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(files("bitsure.report").joinpath("page.html").read_text())
    comparison, level = report.comparison, metric.confidence_level
    alone = {"Quantized": report.metrics, "Full precision": report.baseline_metrics}
    if not comparison:
        alone = {"Full precision": report.metrics}
    pictures = {
        kind: {} if kind in without else {task: base64.b64encode(path.read_bytes()).decode() for task, path in found.items()}
        for kind, found in report.figures.items()
    }
    numbers = "numbers" not in without
    return template.render(
        title=about.title,
        verdict=report.verdict,
        verdict_sentences=verdict.sentences(report.verdict) if report.verdict else [],
        noise_control=bool(report.verdict and report.verdict.noise_control),
        summary=summary(comparison, about.quantization, metric.alpha),
        headline=tables.comparison_rows(comparison, tables.HEADLINE) if comparison else None,
        compared=tables.comparison_rows(comparison) if comparison and numbers else None,
        compared_columns=tables.comparison_columns(level),
        published=published_table.rows(report.published),
        published_heading=published_table.HEADING,
        published_columns=published_table.COLUMNS,
        published_notes=published_table.notes(report.published),
        alone={name: tables.metric_rows(found) for name, found in alone.items() if numbers},
        alone_columns=tables.metric_columns(level),
        figures=pictures,
        changed=None if "samples" in without else changed,
        without=[DISPENSABLE[what] for what in without],
        loading=compressibility.shown(about.compressibility) if about.compressibility else None,
        quantization=_facts(about.quantization) if about.quantization else None,
        provenance={
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in (about.provenance or {}).items()
        },
        normalization=metric.normalization,
        **_cost(metric, about.quantization),
    )


def summary(comparison: Comparison | None, quantization: dict | None, alpha: float) -> list[str]:
    """What was found, in sentences."""
    if comparison is None:
        return ["This is one model alone: there is nothing to compare it with."]
    sentences = []
    if quantization:
        sentences.append(
            f"{len(quantization['modules_quantized'])} layers were quantized ({quantization['parameter_share']:.0%} of the "
            f"parameters) to {quantization['bits_per_weight']:.2f} bits a weight, scales and zero points counted; "
            f"the weights moved by {quantization['relative_error']:.1%}."
        )
    for task, values in comparison.items():
        if task == MACRO or not was_compared(values):
            continue
        sentences.append(_probability(task, values, alpha) if "true_label_prob" in values else _perplexity(task, values))
    return sentences + tables.unjoined(comparison)


def _probability(task: str, values: dict[str, Difference], alpha: float) -> str:
    p, flips = values["true_label_prob"], values["flip_rate"]
    found = "significant" if p.significant else "not significant, which does not show that nothing changed"
    tested = f"{tables.p_value(p.p_adjusted)} at α = {alpha:g}: {found}"
    if robust := values.get(CLUSTER_ROBUST):
        tested += f"; by {robust.n_clusters:,} clusters instead of questions {tables.p_value(robust.p_value)}, unadjusted"
    if p.smallest_detectable:
        tested += f"; a change of {p.smallest_detectable:.4f} would most likely have been found"
    return (
        f"{task}: the mean probability of the right answer went from {p.baseline:.4f} to {p.quantized:.4f}, "
        f"a change of {p.value:+.4f} {tables.interval(p, True)} ({tested}); "
        f"{flips.value:.1%} of {p.n:,} answers changed."
    )


def _perplexity(task: str, values: dict[str, Difference]) -> str:
    word, nll = values["word_perplexity"], values["nll"]
    return (
        f"{task}: the perplexity of a word went from {tables.number(word.baseline)} to {tables.number(word.quantized)}; "
        f"the NLL of a token changed by {nll.value:+.4f} nats {tables.interval(nll, True)} over {nll.n:,} texts "
        f"({tables.p_value(nll.p_adjusted)}, exploratory)."
    )


def _cost(metric: MetricSettings, quantization: dict | None) -> dict[str, float | str]:
    """What a quantized answer is taken to cost, and why."""
    bits = (quantization or {}).get("bits_per_weight")
    source = f"its {bits:.2f} bits a weight of {FULL_BITS}" if bits else "a guess: its bits are not known"
    if metric.quantized_cost is not None:
        source = "metric.quantized_cost"
    return {"quantized_cost": cost_of_quantized(metric.quantized_cost, bits), "cost_source": source}


def _facts(quantization: dict) -> dict[str, str]:
    skipped = ", ".join(f"{name} ({reason})" for name, reason in quantization["modules_skipped"].items())
    groups = ", ".join(f"{size} in {count} layers" for size, count in quantization["group_sizes"].items())
    worst = max(quantization["layers"].items(), key=lambda item: item[1]["output_error"])
    calib = quantization["calib_data"]
    return {
        "Bits per weight, scales and zero points counted": f"{quantization['bits_per_weight']:.3f}",
        "Share of the parameters": f"{quantization['parameter_share']:.1%}",
        "Relative error of the weights": f"{quantization['relative_error']:.4f}",
        "Layer whose output moved most on held-out text": f"{worst[0]}: {worst[1]['output_error']:.4f}",
        "Weights that share a scale": groups,
        "Kept in full precision": skipped or "nothing",
        "Calibration text": f"{calib['name']}, {calib['windows']} windows of {calib['seqlen']} tokens",
    }
