"""Quantizers of a sweep over draws of the calibration text, and pairs of them: which is better, by how much, how surely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.linear_contrast import Effect, effect_of, effect_over_draws, mean_over_tasks
from benchmarks.markdown_table import markdown_table
from benchmarks.swept_cells import SweptCells
from benchmarks.text_contrast import token_mean
from bitsure.base.decimals import with_ends
from bitsure.base.errors import UserError
from bitsure.comparison.published_numbers import TEXT
from bitsure.metrics.multiple_testing import benjamini_hochberg
from bitsure.sweep.report.cell_results import CellResult

PROBABILITY, DIVERGENCE = "true-label probability", "KL divergence, nats"
DIGITS = {PROBABILITY: ".4f", DIVERGENCE: ".5f"}
SIGN = {PROBABILITY: 1, DIVERGENCE: -1}  # 1: more is better
LARGEST_P = 0.05  # adjusted
LEAST_DRAWS = 5  # of the calibration text: a claim about a quantizer with fewer would be one about these draws


def drawn_tables(planned: Sequence[CellResult], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return, of each model, a table of its quantizers and one of pairs, from the cells that are done.

    Args:
        planned: The cells of the sweep; those that are not done are counted.
        pairs: Quantizers by the options that choose them: the first less the second.

    Raises:
        UserError: If no cell is done.
    """
    done = [cell for cell in planned if cell.done and cell.comparison]
    if not done:
        raise UserError("No cell of the sweep is done.")
    lines = [f"{len(done)} of {len(planned)} cells are done."]
    for model in dict.fromkeys(cell.model_name for cell in done):
        cells = SweptCells([cell for cell in done if cell.model_name == model])
        draws = max(Counter(cell.label for cell in planned if cell.model_name == model).values())
        lines += ["", *_quantizer_table(cells), "", *_pair_table(cells, pairs, draws)]
    return lines


def _quantizer_table(cells: SweptCells) -> list[str]:
    effects = {quantizer: effects_of(cells, quantizer) for quantizer in cells.by_calibration}
    names = [name for name in DIGITS if any(name in measured for measured in effects.values())]
    rows = []
    for quantizer, measured in effects.items():
        drawn = cells.by_seed(quantizer, _text(cells)).values()
        bits = [cell.quantization.bits_per_weight for cell in drawn if cell.quantization]
        numbers = [_in_words(name, measured[name], name == PROBABILITY) if name in measured else "" for name in names]
        rows.append([cells.model, quantizer, _range(bits), _draws(measured), *numbers])
    columns = [f"{PROBABILITY} less full precision's" if name == PROBABILITY else name for name in names]
    some_cell = next(cell for texts in cells.by_calibration.values() for seeds in texts.values() for cell in seeds.values())
    return [
        f"{_conditions(some_cell)}:",
        "",
        *markdown_table(["model", "quantizer", "bits a weight", "draws", *columns], rows),
    ]


def _pair_table(cells: SweptCells, pairs: Sequence[tuple[str, str]], draws: int) -> list[str]:
    effects = {pair: measured for pair in pairs if (measured := effects_of(cells, *pair))}
    names = [name for name in DIGITS if any(name in measured for measured in effects.values())]
    by_number = {name: {pair: measured[name] for pair, measured in effects.items() if name in measured} for name in names}
    better = {name: verdicts(SIGN[name], of_pairs, draws) for name, of_pairs in by_number.items()}
    rows = []
    for pair, measured in effects.items():
        numbers = [_in_words(name, measured[name]) if name in measured else "" for name in names]
        row = [cells.model, " − ".join(pair), _draws(measured), *numbers]
        rows.append([*row, *(better[name].get(pair, "") for name in names)])
    columns = ["model", "one less the other", "draws", *names, *(f"better by {name.partition(',')[0]}" for name in names)]
    return [
        f"Exploratory: one is better where p < {LARGEST_P:g}, adjusted by Benjamini–Hochberg over the model's pairs in that "
        f"number; a pair is judged from {LEAST_DRAWS} draws on. Intervals are of single pairs:",
        "",
        *markdown_table(columns, rows),
    ]


def verdicts(sign: int, effects: Mapping[tuple[str, str], Effect], draws: int) -> dict[tuple[str, str], str]:
    """Return which of each pair is better in one number of one model, adjusted for how many pairs are judged.

    Args:
        sign: 1 if more is better, else −1.
        effects: Pair → the first's number less the second's.
        draws: How many draws of the model's quantizers are planned; a pair is judged when it has all, and no fewer than
            LEAST_DRAWS.
    """
    judged = {pair: effect for pair, effect in effects.items() if not 0 < effect.seeds < max(draws, LEAST_DRAWS)}
    p_values = benjamini_hochberg([effect.p_value for effect in judged.values()])
    better = {
        pair: pair[sign * effect.value < 0] if p < LARGEST_P else "undecided"
        for (pair, effect), p in zip(judged.items(), p_values, strict=True)
    }
    return {pair: better.get(pair) or _too_few(effect.seeds, draws) for pair, effect in effects.items()}


def _too_few(done: int, draws: int) -> str:
    return f"{done} draws: too few" if draws < LEAST_DRAWS else f"not yet: {done} of {draws} draws"


def effects_of(cells: SweptCells, first: str, second: str | None = None) -> dict[str, Effect]:
    """Return what of PROBABILITY and DIVERGENCE was measured of a quantizer, less another's if one is given."""
    text = _text(cells)
    others = [] if second is None else [second]
    effects = {}
    if cells.tasks:
        parts = [(1.0, first, text), *((-1.0, other, text) for other in others)]
        effects[PROBABILITY] = effect_of(cells, mean_over_tasks(cells, *parts))
    effects[DIVERGENCE] = _divergence(cells, [first, *others], text)
    return {name: effect for name, effect in effects.items() if effect is not None}


def _divergence(cells: SweptCells, quantizers: Sequence[str], text: str) -> Effect | None:
    quantized = [(quantizer, text) for quantizer in quantizers]
    seeds = cells.draws(quantized)
    pairs = [[cells.cell(*each, seed) for each in quantized] for seed in seeds]
    if not pairs or not any(task.startswith(TEXT) for task in pairs[0][0].metrics):
        return None
    values, errors, units, _ = zip(*(token_mean("kl_divergence", *pair) for pair in pairs), strict=True)
    return effect_over_draws(cells, quantized, values, errors, units[0])


def _text(cells: SweptCells) -> str:
    """Return the calibration text. Raises UserError if the sweep has several."""
    texts = {text for texts in cells.by_calibration.values() for text in texts}
    if len(texts) > 1:
        names = ", ".join(sorted(texts))
        raise UserError(f"{cells.model} is calibrated on {names}. The table is of one calib.name: leave one.")
    return texts.pop()


def _conditions(cell: CellResult) -> str:
    """Return what was asked and what calibrated, from the settings of one cell."""
    calib, limit = cell.config["calib"], cell.config["task"]["limit"]
    tasks = [task for task in cell.tasks if not task.startswith(TEXT)]
    texts = [task for task in cell.tasks if task.startswith(TEXT)]
    first = f"{limit:,}" if limit and limit >= 1 else f"{limit or 1:.0%} of the"
    asked = ", ".join(tasks) + (f" (the first {first} questions of each)" if limit else "")
    scored = [asked] * bool(tasks)
    if texts:
        *_, n, unit = token_mean("kl_divergence", cell)
        tokens = f", the first {cell.config['text']['limit']:,} tokens" if cell.config["text"]["limit"] else ""
        scored.append(f"{', '.join(texts)}{tokens} ({n} {unit}s)")
    windows = f"{calib['nsamples']} × {calib['seqlen']} tokens of `{calib['name']}`"
    return f"{cell.model_name}: {'; '.join(scored)}; calibrated on {windows}"


def _in_words(name: str, effect: Effect, is_change: bool = True) -> str:
    return with_ends(effect.value, effect.ci_low, effect.ci_high, "+" * is_change + DIGITS[name])


def _draws(effects: Mapping[str, Effect]) -> str:
    return str(next(iter(effects.values())).seeds or "none") if effects else ""


def _range(bits: Sequence[float]) -> str:
    if not bits:
        return ""
    low, high = f"{min(bits):.3f}", f"{max(bits):.3f}"
    return low if low == high else f"{low} to {high}"
