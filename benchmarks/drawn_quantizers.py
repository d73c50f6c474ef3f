"""Quantizers of a sweep over draws of the calibration text, and pairs of them: which is better, by how much, how surely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.linear_contrast import Effect, SweptCells
from benchmarks.systems import markdown_table
from benchmarks.text_contrast import token_mean
from bitsure.base.errors import UserError
from bitsure.comparison.published_numbers import TEXT
from bitsure.sweep.report.cell_results import CellResult

PROBABILITY, DIVERGENCE = "true-label probability", "KL divergence, nats"
DIGITS = {PROBABILITY: ".4f", DIVERGENCE: ".5f"}
SIGN = {PROBABILITY: 1, DIVERGENCE: -1}  # 1: more is better


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
    draws = max(Counter((cell.model_name, cell.label) for cell in planned).values())
    lines = [f"{len(done)} of {len(planned)} cells are done, of {draws} draws each."]
    for model in dict.fromkeys(cell.model_name for cell in done):
        lines += ["", *_tables_of(SweptCells([cell for cell in done if cell.model_name == model]), pairs, draws)]
    return lines


def _tables_of(cells: SweptCells, pairs: Sequence[tuple[str, str]], draws: int) -> list[str]:
    some_cell = next(cell for texts in cells.by_text.values() for seeds in texts.values() for cell in seeds.values())
    rows = []
    for quantizer in cells.by_text:
        effects = effects_of(cells, quantizer)
        bits = [cell.quantization.bits_per_weight for cell in cells.of(quantizer, _text(cells)).values() if cell.quantization]
        rows.append(
            [
                cells.model,
                quantizer,
                _range(bits),
                _draws(effects),
                *(_in_words(name, effect, name == PROBABILITY) for name, effect in effects.items()),
            ]
        )
    measured = list(effects_of(cells, next(iter(cells.by_text))))
    compared = []
    for first, second in pairs:
        effects = effects_of(cells, first, second)
        if effects:
            winners = [_winner(name, effect, first, second, draws) for name, effect in effects.items()]
            words = [*map(_in_words, effects, effects.values()), *winners]
            compared.append([cells.model, f"{first} − {second}", _draws(effects), *words])
    less = [f"{PROBABILITY} less full precision's" if name == PROBABILITY else name for name in measured]
    return [
        f"{_about(some_cell)}:",
        "",
        *markdown_table(["model", "quantizer", "bits a weight", "draws", *less], rows),
        "",
        *markdown_table(
            ["model", "one less the other", "draws", *measured, *(f"better by {name.partition(',')[0]}" for name in measured)],
            compared,
        ),
    ]


def effects_of(cells: SweptCells, first: str, second: str | None = None) -> dict[str, Effect]:
    """Return what of PROBABILITY and DIVERGENCE was measured of a quantizer, less another's if one is given."""
    text = _text(cells)
    others = [] if second is None else [second]
    effects = {}
    if cells.tasks:
        parts = [(1.0, first, text), *((-1.0, other, text) for other in others)]
        effects[PROBABILITY] = cells.effect(cells.mean_over_tasks(*parts))
    effects[DIVERGENCE] = _divergence(cells, [first, *others], text)
    return {name: effect for name, effect in effects.items() if effect is not None}


def _divergence(cells: SweptCells, quantizers: Sequence[str], text: str) -> Effect | None:
    quantized = [(quantizer, text) for quantizer in quantizers]
    seeds = cells.draws(quantized)
    pairs = [[cells.cell(*each, seed) for each in quantized] for seed in seeds]
    if not pairs or not any(task.startswith(TEXT) for task in pairs[0][0].metrics):
        return None
    values, errors, _ = zip(*(token_mean("kl_divergence", *pair) for pair in pairs), strict=True)
    return cells.over(seeds, quantized, values, errors)


def _text(cells: SweptCells) -> str:
    """Return the calibration text, which is one in such a sweep."""
    return next(text for texts in cells.by_text.values() for text in texts)


def _about(cell: CellResult) -> str:
    """Return what was asked and what calibrated, from the settings of one cell."""
    calib, limit = cell.config["calib"], cell.config["task"]["limit"]
    tasks = [task for task in cell.tasks if not task.startswith(TEXT)]
    texts = [task for task in cell.tasks if task.startswith(TEXT)]
    asked = f"{', '.join(tasks)}" + (f" (the first {limit:g} questions of each)" if limit and tasks else "")
    tokens = f", the first {cell.config['text']['limit']:,} tokens" if texts and cell.config["text"]["limit"] else ""
    scored = [asked] * bool(tasks) + [f"{', '.join(texts)}{tokens}"] * bool(texts)
    windows = f"{calib['nsamples']} × {calib['seqlen']} tokens of `{calib['name']}`"
    return f"{cell.model_name}: {'; '.join(scored)}; calibrated on {windows}"


def _winner(name: str, effect: Effect, first: str, second: str, draws: int) -> str:
    """Return whose number is better where the interval of the difference does not hold 0, once all draws are there."""
    if 0 < effect.seeds < draws:
        return f"not yet: {effect.seeds} of {draws} draws"
    if effect.ci_low <= 0 <= effect.ci_high:
        return "undecided"
    return first if SIGN[name] * effect.value > 0 else second


def _in_words(name: str, effect: Effect, is_change: bool = True) -> str:
    form = "+" * is_change + DIGITS[name]
    return f"{effect.value:{form}} [{effect.ci_low:{form}}, {effect.ci_high:{form}}]"


def _draws(effects: Mapping[str, Effect]) -> str:
    return str(next(iter(effects.values())).seeds or "none") if effects else ""


def _range(bits: Sequence[float]) -> str:
    low, high = f"{min(bits):.3f}", f"{max(bits):.3f}"
    return low if low == high else f"{low} to {high}"
