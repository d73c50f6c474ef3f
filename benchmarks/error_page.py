"""The tables of `benchmarks.layer_errors`: every variant, means over draws, and which error goes with which loss."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats

from benchmarks.error_lab import KINDS, SEQLEN, Lab, nll

Records = dict[str, dict]  # variant → what was measured
DRAWN = ("rtn-dither", "gptq-draw", "gptqmodel-draw")  # variants of several draws; their names end in a digit


def mean(rows: list[list[float]]) -> float:
    values = [value for row in rows for value in row]
    return sum(values) / len(values)


def relative(errors: dict[str, list[float]], part: int, of: int = 3) -> float:
    """The mean over layers of the root of one squared norm over another."""
    return sum((max(e[part], 0) / e[of]) ** 0.5 for e in errors.values()) / len(errors)


def root_mean_square(record: dict) -> float:
    return math.hypot(relative(record["errors"], 2), relative(record["first"], 0)) / 2**0.5


ERRORS: dict[str, Callable[[dict], float]] = {
    "output error": lambda record: relative(record["errors"], 0),
    "centred": lambda record: relative(record["errors"], 2),
    "of first tokens": lambda record: relative(record["first"], 0),
    "centred and of first tokens, root mean square": root_mean_square,
}
LOSSES: dict[str, Callable[[dict], float]] = {
    "KL on C4": lambda record: mean(record["text"]),
    "KL on PIQA's text": lambda record: mean(record["short"]),
}
COLUMNS = ("variant", *list(ERRORS)[:3], "KL on C4", "NLL on C4", "KL on PIQA's text", "KL of choices", "Δp of gold")


def choice_changes(lab: Lab, record: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each question's KL of the choices and the change of the right choice's probability, (n,)."""
    full, now = (torch.as_tensor(z).log_softmax(-1) for z in (lab.full_choices, record["choices"]))
    gold = torch.arange(len(full)), lab.gold
    return (full.exp() * (full - now)).sum(-1), now[gold].exp() - full[gold].exp()


def row(lab: Lab, name: str, record: dict) -> list[str]:
    """Return a variant's row of the table."""
    cells = [name, *(f"{ERRORS[error](record):.3f}" for error in COLUMNS[1:4])]
    cells += [f"{mean(record['text']):.4f}", f"{record['nll']:.4f}", f"{mean(record['short']):.4f}"]
    if "choices" not in record:
        return [*cells, "", ""]
    return cells + [f"{each.mean():+.4f} ± {each.std() / len(each) ** 0.5:.4f}" for each in choice_changes(lab, record)]


def correlations(records: Records) -> list[list[str]]:
    """Return how the logarithm of each error goes with that of each loss, over kinds of layers and over whole models.

    A kind of layer alone is divided by its rounding to nearest, since kinds differ in what an error costs.
    """
    pairs = ((f"only-{part}-{how}", f"only-{part}-rtn") for part in KINDS for how in ("rtn-bias", "gptq"))
    layers = [(records[name], records[nearest]) for name, nearest in pairs if name in records]
    models = [record for name, record in records.items() if not name.startswith("only-") and "exact-first" not in name]
    rows = []
    for error, error_of in ERRORS.items():
        cells = [error]
        for loss_of in LOSSES.values():
            by_layer = [[math.log(of(one) / of(nearest)) for one, nearest in layers] for of in (error_of, loss_of)]
            by_model = [[math.log(of(record)) for record in models] for of in (error_of, loss_of)]
            cells += [f"{np.corrcoef(pair)[0, 1]:+.2f}" for pair in (by_layer, by_model)]
        rows.append(cells)
    return [["n", *2 * [str(len(layers)), str(len(models))]], *rows]


def over_draws(lab: Lab, records: Records) -> list[list[str]]:
    """Return means over draws with their 95% t intervals, and the difference between the two solvers on the same draws."""
    draws: dict[str, np.ndarray] = {}
    for method in DRAWN:
        own = [record for name, record in sorted(records.items()) if name[:-1] == method]
        changes = [[float(change.mean()) for change in choice_changes(lab, record)] for record in own]
        draws[method] = np.array([[*(of(r) for of in LOSSES.values()), *each] for r, each in zip(own, changes, strict=True)])
    if len(draws["gptqmodel-draw"]) == len(draws["gptq-draw"]):
        draws["gptqmodel less gptq"] = draws["gptqmodel-draw"] - draws["gptq-draw"]
    rows = []
    for method, each in draws.items():
        if len(each) > 1:
            reach = stats.t.ppf(0.975, len(each) - 1) * stats.sem(each, axis=0)
            rows.append([method, str(len(each)), *(f"{m:+.4f} ± {r:.4f}" for m, r in zip(each.mean(0), reach, strict=True))])
    return rows


def table(head: Sequence[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def page(lab: Lab, given: argparse.Namespace, tokens: int) -> str:
    """Return the tables of everything that was measured; `tokens`: of a draw of calibration text."""
    records: Records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(given.work.glob("*.json"))}
    rounded = "" if lab.kinds == KINDS else f", {', '.join(lab.kinds)} rounded alone"
    model = given.model.name + rounded + ", each weight moved at random within its step of 4 bits" * given.spread
    parts = [
        f"Made by `make bench-errors` for {model}:\n{given.held_out} held-out windows of {SEQLEN} tokens of C4, "
        f"{given.read} questions of PIQA read as text, {given.questions} scored.\n"
        f"Full precision: NLL {nll(lab.full_text, list(lab.held_out)):.4f} on C4. ± is a standard error over questions.",
        table(COLUMNS, [row(lab, name, record) for name, record in records.items()]),
    ]
    if rows := over_draws(lab, records):
        parts += [
            f"Means over draws of {tokens:,} tokens of C4 (`rtn-dither`: of ranges); ± is a 95% t interval over draws.",
            table(["method", "draws", *LOSSES, *COLUMNS[-2:]], rows),
        ]
    if lab.kinds == KINDS:
        parts += [
            "Correlations of the logarithms of an error and of a loss. Layers: each kind alone, by `rtn-bias` and `gptq`,\n"
            "relative to `rtn`. Whole models: the variants above in which every layer is rounded.",
            table(["error", *(f"{loss}, {of}" for loss in LOSSES for of in ("layers", "whole models"))], correlations(records)),
        ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
