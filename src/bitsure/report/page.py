"""report.html: one file that opens from disk, needs no script and no network, and escapes all text."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path

from bitsure.report import tables


def render(
    title: str,
    alone: dict[str, dict],
    comparison: dict | None,
    quantization: dict | None,
    provenance: dict,
    figures: dict[str, Path],
    level: float,
    alpha: float,
) -> str:
    """The page as a string. alone: each model's own metrics by its name; figures: PNG files by task."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(files("bitsure.report").joinpath("page.html").read_text())
    return template.render(
        title=title,
        summary=summary(comparison, quantization, alpha),
        compared=tables.comparison_rows(comparison) if comparison else None,
        compared_columns=tables.comparison_columns(level),
        alone={name: tables.metric_rows(metrics) for name, metrics in alone.items()},
        alone_columns=tables.metric_columns(level),
        figures={task: base64.b64encode(path.read_bytes()).decode() for task, path in figures.items()},
        quantization=_facts(quantization) if quantization else None,
        provenance={
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in provenance.items()
        },
    )


def summary(comparison: dict | None, quantization: dict | None, alpha: float) -> list[str]:
    """What was found, in sentences."""
    if comparison is None:
        return ["This is the full-precision model: nothing was quantized, and there is nothing to compare."]
    sentences = []
    if quantization:
        sentences.append(
            f"{len(quantization['modules_quantized'])} layers were quantized ({quantization['parameter_share']:.0%} of the "
            f"parameters) to {quantization['bits_per_weight']:.2f} bits a weight, scales and zero points counted; "
            f"the weights moved by {quantization['relative_error']:.1%}."
        )
    for task, values in comparison.items():
        p, flips = values["true_label_prob"], values["flip_rate"]
        found = "significant" if p["significant"] else "not significant, which does not show that nothing changed"
        tested = f"p = {tables.p_value(p['p_adjusted'])} at α = {alpha:g}: {found}"
        sentences.append(
            f"{task}: the mean probability of the right answer went from {p['baseline']:.4f} to {p['quantized']:.4f}, "
            f"a change of {p['value']:+.4f} {tables.interval(p, True)} ({tested}); "
            f"{flips['value']:.1%} of {p['n']:,} answers changed."
        )
    return sentences


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
