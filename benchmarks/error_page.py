"""The tables of `benchmarks.layer_errors`: every variant, differences with intervals, and which error goes with which loss."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats

from benchmarks.error_lab import KINDS, SEQLEN, Lab, nll_by_token
from benchmarks.markdown_table import markdown_table
from bitsure.base.decimals import decimal, with_ends

Records = dict[str, dict]  # variant → what was measured


def relative(errors: dict[str, list[float]], part: int) -> float:
    """The mean over layers of the root of one squared norm over that of the output."""
    return sum((max(e[part], 0) / e[3]) ** 0.5 for e in errors.values()) / len(errors)


ERRORS: dict[str, Callable[[dict], float]] = {
    "output error": lambda record: relative(record["errors"], 0),
    "centred": lambda record: relative(record["errors"], 2),
    "of first tokens": lambda record: relative(record["first"], 0),
    "centred and of first tokens, root mean square": lambda record: (
        math.hypot(relative(record["errors"], 2), relative(record["first"], 0)) / 2**0.5
    ),
}


def text_means(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the mean over the tokens of each text: a window of C4 or a question counts as one observation."""
    return np.array([np.mean(row) for row in rows])


def nll_change(lab: Lab, record: dict) -> np.ndarray:
    return text_means(record["nll"]) - text_means(nll_by_token(lab.full_text, list(lab.held_out)))


def choice_changes(lab: Lab, record: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each question the choices' KL, the rise of the right choice's NLL a token, and its probability's change."""
    before, after = (torch.as_tensor(z) for z in (lab.full_choices, record["choices"]))
    full, now = before.log_softmax(-1), after.log_softmax(-1)
    gold = torch.arange(len(full)), lab.gold
    tokens = torch.tensor([len(choice) for _, choice in lab.requests]).view(-1, 2)[gold]
    kl = (full.exp() * (full - now)).sum(-1)
    return kl.numpy(), ((before - after)[gold] / tokens).numpy(), (now[gold].exp() - full[gold].exp()).numpy()


TEXT_LOSSES: dict[str, Callable[[Lab, dict], np.ndarray]] = {
    "KL on C4": lambda lab, record: text_means(record["text"]),
    "ΔNLL on C4": nll_change,
    "KL on PIQA's text": lambda lab, record: text_means(record["short"]),
}
CHOICE_LOSSES: dict[str, Callable[[Lab, dict], np.ndarray]] = {
    "KL of choices": lambda lab, record: choice_changes(lab, record)[0],
    "ΔNLL of right choices": lambda lab, record: choice_changes(lab, record)[1],
    "Δp of right choices": lambda lab, record: choice_changes(lab, record)[2],
}
LOSSES = TEXT_LOSSES | CHOICE_LOSSES


def mean_with_reach(values: np.ndarray) -> str:
    """Return the mean and the reach of its 95% interval, of values of shape (draws, windows of text or questions).

    The interval is for other text and, with several draws, for other calibration text: the two variances are added.
    """
    reaches = [
        stats.t.ppf(0.975, len(each) - 1) * stats.sem(each) for each in (values.mean(0), values.mean(1)) if len(each) > 1
    ]
    return f"{decimal(values.mean(), '+.4f')} ± {math.hypot(*reaches):.4f}"


def losses(lab: Lab, first: list[dict], second: list[dict] | None = None) -> list[str]:
    """Return the mean losses of a method's records, or of their differences from another's, draw by draw."""
    cells = []
    for name, loss in LOSSES.items():
        if name in CHOICE_LOSSES and not all("choices" in record for record in (*first, *(second or ()))):
            cells.append("")
            continue
        values = np.stack([loss(lab, record) for record in first])
        if second:
            values = values - np.stack([loss(lab, record) for record in second])
        cells.append(mean_with_reach(values))
    return cells


def every_variant(lab: Lab, records: Records) -> list[list[str]]:
    return [
        [name, *(f"{ERRORS[error](record):.3f}" for error in list(ERRORS)[:3]), *losses(lab, [record])]
        for name, record in records.items()
    ]


def draws_of(records: Records, method: str) -> list[dict]:
    return [record for name, record in sorted(records.items()) if name[:-1] == f"{method}-draw"]


def over_draws(lab: Lab, records: Records) -> list[list[str]]:
    """Return the methods' losses over draws of calibration text, and the differences between methods on the same draws."""
    methods = {"rtn": [records["rtn"]], **{name: draws_of(records, name) for name in ("rtn-bias", "gptq", "gptqmodel")}}
    rows = [[name, str(len(own)), *losses(lab, own)] for name, own in methods.items() if own]
    for name, other in (("rtn-bias", "rtn"), ("gptq", "rtn"), ("gptq", "rtn-bias"), ("gptqmodel", "gptq")):
        first, second = methods[name], methods[other]
        pairs = list(zip(first, second * len(first) if len(second) == 1 else second, strict=False))
        if pairs:
            rows.append([f"{name} less {other}", str(len(pairs)), *losses(lab, *map(list, zip(*pairs, strict=True)))])
    return rows


def between(lab: Lab, records: Records, pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the differences between pairs of variants, of those that were measured."""
    return [
        [f"{first} less {second}", *losses(lab, [records[first]], [records[second]])]
        for first, second in pairs
        if first in records and second in records
    ]


WHOLE_PAIRS = (
    ("rtn-bias", "rtn"),
    ("gptq", "rtn"),
    ("gptq", "rtn-bias"),
    ("gptq-rtn-values", "rtn"),
    ("gptq-rtn-values", "gptq"),
    ("gptq-first", "rtn"),
    ("gptq-first", "gptq"),
    ("gptq-mlp-rtn-attention", "gptq"),
    ("rtn-mlp-gptq-attention", "rtn"),
    ("gptq-exact-first", "rtn-exact-first"),
    ("rtn-bias-exact-first", "rtn-exact-first"),
)
KIND_PAIRS = tuple(
    (f"only-{part}-{how}{exact}", f"only-{part}-rtn{exact}")
    for part in KINDS
    for exact in ("", "-exact-first")
    for how in ("rtn-bias", "gptq")
)


def correlations(lab: Lab, records: Records) -> list[list[str]]:
    """Return how the ranks of each error go with those of each loss, over kinds of layers and over whole models.

    A kind of layer alone is divided by its rounding to nearest, since kinds differ in what an error costs.
    """
    layers = [(records[a], records[b]) for a, b in KIND_PAIRS if a in records and "exact" not in a]
    models = [record for name, record in records.items() if not name.startswith("only-") and "exact-first" not in name]
    rows = [["n", *2 * [str(len(layers))], *len(TEXT_LOSSES) * [str(len(models))]]]
    for error, error_of in ERRORS.items():
        of_layers = [
            rank_correlation([(error_of(a) / error_of(b), loss(lab, a).mean() / loss(lab, b).mean()) for a, b in layers])
            for name, loss in TEXT_LOSSES.items()
            if name.startswith("KL")
        ]
        of_models = [
            rank_correlation([(error_of(model), loss(lab, model).mean()) for model in models]) for loss in TEXT_LOSSES.values()
        ]
        rows.append([error, *of_layers, *of_models])
    return rows


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> str:
    """Return Spearman's correlation of errors and losses with Fisher's 95% interval, as if the pairs were independent."""
    value = float(stats.spearmanr(pairs).statistic)
    reach = stats.norm.ppf(0.975) * 1.03 / (len(pairs) - 3) ** 0.5
    low, high = np.tanh(np.arctanh(np.clip(value, -0.999, 0.999)) + np.array([-reach, reach]))
    return with_ends(value, low, high, "+.2f")


def table(columns: Sequence[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown, with the end of its last line."""
    return "\n".join(markdown_table(columns, rows)) + "\n"


def page(lab: Lab, given: argparse.Namespace, tokens: int) -> str:
    """Return the tables of everything that was measured; `tokens`: of a draw of calibration text."""
    records: Records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(given.work.glob("*.json"))}
    full = text_means(nll_by_token(lab.full_text, list(lab.held_out)))
    parts = [
        f"Made by `make bench-errors{' ARGS=--spread' * given.spread}` for {given.model.name}:\n"
        f"{given.held_out} held-out windows of {SEQLEN} tokens of C4, {given.read} questions of PIQA read as text, "
        f"{given.questions} scored.\n"
        f"Full precision has an NLL of {full.mean():.4f} nats on C4. Δ: quantized less full precision. ± reaches to the ends\n"
        f"of the 95% interval over windows of C4, or over questions.",
        table(["variant", *list(ERRORS)[:3], *LOSSES], every_variant(lab, records)),
    ]
    if draws_of(records, "gptq"):
        parts += [
            f"Means over draws of {tokens:,} tokens of C4 as calibration text; the intervals are over draws and over text.",
            table(["method", "draws", *LOSSES], over_draws(lab, records)),
        ]
    if whole := between(lab, records, WHOLE_PAIRS):
        parts += [
            f"Differences where {given.draws * tokens:,} tokens calibrate; the intervals are over text alone.",
            table(["variants", *LOSSES], whole),
        ]
    if kinds := between(lab, records, KIND_PAIRS):
        parts += [
            "Differences where one kind of layer is rounded.",
            table(["variants", *TEXT_LOSSES], [row[: 1 + len(TEXT_LOSSES)] for row in kinds]),
        ]
    if "only-down_proj-gptq" in records:
        of_layers = [f"{loss}, layers" for loss in TEXT_LOSSES if loss.startswith("KL")]
        parts += [
            "Rank correlations of an error and a loss. Layers: each kind alone, by `rtn-bias` and `gptq`,\n"
            "relative to `rtn`. Whole models: the variants above in which every layer is rounded.\n"
            "Variants share the model, the text and much of their rounding; Fisher's 95% intervals take them for independent,\n"
            "and are too narrow.",
            table(["error", *of_layers, *(f"{loss}, whole models" for loss in TEXT_LOSSES)], correlations(lab, records)),
        ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
