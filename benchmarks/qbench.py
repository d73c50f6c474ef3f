"""The tables of docs/qbench.md and the agreement table of docs/systems.md: `make qbench ARGS=multirun/qbench`.

From a run of sweeps/qbench.yaml, finished or not: what is missing is left out and counted. Claims are those that LLM-QBench's
(Gong et al. 2024) repository states. A claim is judged only with all draws that the sweep plans, by a p-value that is adjusted
for how many claims are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.linear_contrast import Effect, effect_of, mean_over_tasks
from benchmarks.markdown_table import markdown_table
from benchmarks.qbench_claims import CLAIMS, DOMAINS, NO_TEXT, PROBABILITY, TEXT, Judged, better, judge, matched
from benchmarks.regions import fill, write_from_sweep
from benchmarks.swept_cells import SweptCells
from benchmarks.systems import PAGE as SYSTEMS
from bitsure.base.decimals import with_ends
from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.report.tables import p_value
from bitsure.sweep.report.cell_results import CellResult, read_cells

PAGE = PROJECT / "docs" / "qbench.md"
SCHEMES = {
    "weights": "w8 gptq-w4 awq-w4 w4 hqq4 bnb-nf4 gptq-w3 awq-w3 awq-asym-w3 clip-asym3 scale-w3 w3 hqq3 gptq-w2 awq-w2 "
    "awq-asym-w2 w2 hqq2",
    "W8A8": "smooth-int-w8a8 int-w8a8 mxint8 fp8",
    "W4A8": "gptq-int-w4a8 smooth-gptq-int-w4a8 int-w4a8",
    "W4A4": "rotate-gptq-int-w4a4 rotate-int-w4a4 smooth-gptq-int-w4a4 gptq-int-w4a4 awq-int-w4a4 smooth-int-w4a4 "
    "qllm-w4a4 int-w4a4 smooth-gptq-mxfp4 mxfp4",
    "keys and values": "kv8 kv4 kv3 kv2",
    "weights, keys and values": "w4kv4 w4a8kv4",
}


def main() -> None:
    """Fill both pages."""
    write_from_sweep(__doc__, PAGE, write_agreement)


def write_agreement(sweep: Path) -> dict[str, list[str]]:
    """Fill the agreement table of docs/systems.md, and return the regions of docs/qbench.md."""
    planned = read_cells(sweep)
    rendered = regions(planned)
    page = SYSTEMS.read_text(encoding="utf-8")
    SYSTEMS.write_text(fill(page, {"agreement": agreement(by_model(planned))}), encoding="utf-8")
    return rendered


def by_model(cells: Sequence[CellResult]) -> list[SweptCells]:
    """Return the finished cells of each model. Raises UserError if none is."""
    done = [cell for cell in cells if cell.done and cell.comparison]
    if not done:
        raise UserError("No cell of the sweep is done.")
    models = dict.fromkeys(cell.model_name for cell in done)
    return [SweptCells([cell for cell in done if cell.model_name == model]) for model in models]


def regions(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return region of docs/qbench.md → its lines."""
    models = by_model(planned)
    return {
        "progress": progress(planned),
        "takeaways": takeaways(models),
        "data": data(models),
        "algorithms": algorithms(models),
        "parts": parts(models),
        "costs": costs(models),
    }


def progress(planned: Sequence[CellResult]) -> list[str]:
    """Return how much of the sweep there is."""
    done, skipped = (sum(cell.state == state for cell in planned) for state in ("done", "skipped"))
    wanted = len(planned) - skipped
    lines = [
        f"{done} of {wanted} cells are done" + (f"; {skipped} need libraries that were not installed." if skipped else ".")
    ]
    if done < wanted:
        lines.append("What follows is of these alone: a claim is not judged before all five draws of its texts are there.")
    return [*lines, "", *markdown_table(["model", "cells", "done"], _by_model(planned))]


def _by_model(planned: Sequence[CellResult]) -> list[list[str]]:
    return [
        [model, str(len(of)), str(sum(cell.done for cell in of))]
        for model in dict.fromkeys(_model(cell) for cell in planned)
        for of in [[cell for cell in planned if _model(cell) == model]]
    ]


def _model(cell: CellResult) -> str:
    return cell.name.partition(" ")[0] if not cell.config else cell.model_name


def takeaways(models: Sequence[SweptCells]) -> list[str]:
    """Return each claim with its number, interval, draws and verdict, under its takeaway."""
    lines, judged = [], list(zip(CLAIMS, judge(models), strict=True))
    for takeaway in dict.fromkeys(claim.takeaway for claim in CLAIMS):
        rows = [
            [claim.words, claim.number, cells.model, _number(each.effect), _draws(each.effect), _p(each), each.verdict]
            for claim, row in judged
            if claim.takeaway == takeaway
            for cells, each in zip(models, row, strict=True)
        ]
        columns = ["claim", "number", "model", "value", "draws", "adjusted p", "verdict"]
        lines += [f"### {takeaway}", "", *markdown_table(columns, rows), ""]
    return lines[:-1]


def agreement(models: Sequence[SweptCells]) -> list[str]:
    """Return each published conclusion with its source and what each model says to it."""
    rows = [
        [claim.takeaway, claim.words, claim.source, *(each.verdict for each in row)]
        for claim, row in zip(CLAIMS, judge(models), strict=True)
    ]
    return markdown_table(["takeaway", "conclusion", "source", *(cells.model for cells in models)], rows)


def _p(judged: Judged) -> str:
    return "" if judged.p_adjusted is None else p_value(judged.p_adjusted)


def _number(effect: Effect | None) -> str:
    return "" if effect is None else with_ends(effect.value, effect.ci_low, effect.ci_high, "+.3f")


def _draws(effect: Effect | None) -> str:
    return "" if effect is None else str(effect.seeds or "none")


def data(models: Sequence[SweptCells]) -> list[str]:
    """Return each text less the text of all kinds, by quantizer, in the mean over tasks."""
    rows = []
    for cells in models:
        for quantizer in _present(cells):
            if cells.reads_text(quantizer):
                texts = (*DOMAINS, NO_TEXT)
                effects = [
                    effect_of(cells, mean_over_tasks(cells, (1, quantizer, text), (-1, quantizer, TEXT))) for text in texts
                ]
                own = effect_of(cells, matched(quantizer))
                rows.append([cells.model, quantizer, *map(_number, effects), _number(own), _draws(own)])
    columns = [*(f"{text} − {TEXT}" for text in (*DOMAINS, NO_TEXT)), "own kind − other kind"]
    return markdown_table(["model", "quantizer", *columns, "draws"], rows)


def _present(cells: SweptCells) -> list[str]:
    quantizers = " ".join(SCHEMES.values()).split()
    return [quantizer for quantizer in quantizers if quantizer in cells.by_calibration]


def algorithms(models: Sequence[SweptCells]) -> list[str]:
    """Return each quantizer's changes by scheme, best first by the probability of the right answer."""
    rows = []
    for cells in models:
        for scheme, quantizers in SCHEMES.items():
            of_scheme = []
            for quantizer in quantizers.split():
                terms = mean_over_tasks(cells, (1.0, quantizer, TEXT))
                effect, accuracy = effect_of(cells, terms), effect_of(cells, terms, "accuracy")
                if effect is not None:
                    cell = next(iter(cells.by_seed(quantizer, TEXT).values()))
                    bits = f"{cell.quantization.bits_per_weight:.2f}" if cell.quantization else ""
                    row = [cells.model, scheme, quantizer, bits, _number(effect), _number(accuracy), _draws(effect)]
                    of_scheme.append((effect.value, row))
            rows += [row for _, row in sorted(of_scheme, key=lambda pair: -pair[0])]
    columns = ["bits a weight", f"{PROBABILITY} less full precision's", "accuracy less full precision's", "draws"]
    return markdown_table(["model", "scheme", "quantizer", *columns], rows)


def parts(models: Sequence[SweptCells]) -> list[str]:
    """Return what each part of a chain adds to what stands without it: the fourth principle, modularity."""
    pairs = {
        "AWQ's scales, 3 bits": ("scale-w3", "w3"),
        "asymmetric clipping, 3 bits": ("clip-asym3", "w3"),
        "both, 3 bits": ("awq-asym-w3", "w3"),
        "GPTQ, 3 bits": ("gptq-w3", "w3"),
        "SmoothQuant, W4A4": ("smooth-int-w4a4", "int-w4a4"),
        "GPTQ, W4A4": ("gptq-int-w4a4", "int-w4a4"),
        "SmoothQuant before GPTQ, W4A4": ("smooth-gptq-int-w4a4", "gptq-int-w4a4"),
        "GPTQ after SmoothQuant, W4A4": ("smooth-gptq-int-w4a4", "smooth-int-w4a4"),
        "rotations, W4A4": ("rotate-int-w4a4", "int-w4a4"),
        "GPTQ after rotations, W4A4": ("rotate-gptq-int-w4a4", "rotate-int-w4a4"),
        "QLLM, W4A4": ("qllm-w4a4", "int-w4a4"),
        "GPTQ, W4A8": ("gptq-int-w4a8", "int-w4a8"),
        "SmoothQuant, W8A8": ("smooth-int-w8a8", "int-w8a8"),
    }
    rows = [
        [cells.model, part, f"{first} − {second}", _number(effect), _draws(effect)]
        for cells in models
        for part, (first, second) in pairs.items()
        if (effect := better(first, second)(cells)) is not None
    ]
    return markdown_table(["model", "part", "quantizers", PROBABILITY, "draws"], rows)


def costs(models: Sequence[SweptCells]) -> list[str]:
    """Return what quantizing and scoring cost, means over all cells of a quantizer."""
    rows = []
    for cells in models:
        for quantizer in _present(cells):
            each = [cell.costs for seeds in cells.by_calibration[quantizer].values() for cell in seeds.values()]
            quantizing = [cost.quantizing for cost in each if cost and cost.quantizing]
            ratios = [
                cost.scoring_quantized.tokens_per_second / cost.scoring_full_precision.tokens_per_second
                for cost in each
                if cost and cost.scoring_quantized and cost.scoring_full_precision
            ]
            seconds = [cost.seconds for cost in quantizing if cost.seconds is not None]
            peaks = [cost.peak_memory_bytes / 1e6 for cost in quantizing if cost.peak_memory_bytes]
            numbers = [f"{fmean(seconds):.1f}" if seconds else "", f"{fmean(peaks):,.0f}" if peaks else ""]
            rows.append([cells.model, quantizer, *numbers, f"{fmean(ratios):.2f}" if ratios else "", str(len(each))])
    columns = ["quantizing, s", "peak, MB", "scoring speed ÷ full precision's", "cells"]
    return markdown_table(["model", "quantizer", *columns], rows)


if __name__ == "__main__":
    main()
