"""Model against model under one quantizer, quantizer against quantizer on one model, on the questions that both were asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import sha256
from itertools import combinations, product
from typing import NamedTuple

from bitsure.comparison import changes
from bitsure.comparison.changes import Changes
from bitsure.comparison.compare import was_compared
from bitsure.config.schema import MetricSettings
from bitsure.metrics import across
from bitsure.metrics.measure import MACRO
from bitsure.sweep.report import sweep_table as table
from bitsure.sweep.report.cell_results import Cell
from bitsure.sweep.report.sweep_statistics import adjusted

CALIB = ("calib_data", "calib_nsamples", "calib_seqlen", "calib_seed")
LIKE_SIZE = 0.5  # bits per weight by which quantizers of other methods may differ


class Kind(NamedTuple):
    """What two runs differ in that are set against each other, and what they have in common."""

    differ: tuple[str, ...]
    same: tuple[str, ...]


KINDS = {
    "contrasts": Kind(("model",), ("quantizer", "setting", *CALIB)),
    "contrasts_of_quantizers": Kind(("quantizer", "setting"), ("model", "training_seed", "other_than_quantizing", *CALIB)),
}
OTHER = ("other", "other_setting")  # the second run's columns of what differs
BITS = ("bits_per_weight", "other_bits_per_weight")


def contrasts(cells: list[Cell], metric: MetricSettings) -> tuple[dict[str, list[dict]], list[str]]:
    """For each of KINDS, of each two runs by how much more the second one's mean changed; and which cells were unreadable.

    Smaller models come first, and quantizers whose bits per weight are most alike; quantizers of another method are compared
    where these differ by LIKE_SIZE at the most. Questions are resampled with all runs' answers, by their clusters. The task is
    the outer loop, so that its resamples are drawn once and no more than one task's changes are held at once. A pair's
    contrasts under several calibration seeds are one, their mean over both random effects. p-values are adjusted by
    Benjamini–Hochberg, those of each kind by themselves.
    """
    runs = [(cell, about) for cell, about in zip(cells, table.about(cells), strict=True) if cell.comparison]
    runs.sort(key=lambda run: tuple(_orderable(run[1][key]) for key in ("quantizer", "setting", *CALIB, "parameters", "model")))
    tasks = sorted({task for cell, _ in runs for task, one in cell.comparison.items() if task != MACRO and was_compared(one)})
    results, unread = {kind: [] for kind in KINDS}, {}
    for task in tasks:
        found = []
        for cell, about in runs:
            if was_compared(cell.comparison.get(task, {})):
                try:
                    found.append((about, changes.read(cell.directory / "changes.parquet", task)))
                except (OSError, ValueError):
                    unread[cell.name] = None
        for kind, row in _contrasts(task, found, metric):
            results[kind].append(row)
    results = {kind: _over_seeds(rows, metric.confidence_level) for kind, rows in results.items()}
    results["contrasts_of_quantizers"].sort(key=lambda row: _apart(*(row[key] for key in BITS)))
    return {kind: adjusted(rows) for kind, rows in results.items()}, list(unread)


def _contrasts(task: str, runs: list[tuple[dict, Changes]], metric: MetricSettings) -> Iterator[tuple[str, dict]]:
    """Those of one task; nearly always all runs have the same questions, which are then resampled for all at once."""
    groups: dict[bytes, list[int]] = {}
    for i, (_, one) in enumerate(runs):
        groups.setdefault(sha256(one.question.tobytes()).digest(), []).append(i)
    for members in groups.values():
        yield from _between([runs[i] for i in members], task, metric)
    for some, others in combinations(groups.values(), 2):
        for pair in product(some, others):
            (first, one), (second, other) = (runs[i] for i in sorted(pair))
            if _kind(first, second):
                both = changes.in_common(one, other)
                if len(both[0].question):
                    yield from _between(list(zip((first, second), both, strict=True)), task, metric)


def _kind(first: dict, second: dict) -> str | None:
    """Under which of KINDS two runs are set against each other, if at all."""
    for kind, (differ, same) in KINDS.items():
        if any(first[key] != second[key] for key in differ) and all(first[key] == second[key] for key in same):
            return kind if "model" in differ or _alike(first, second) else None
    return None


def _alike(first: dict, second: dict) -> bool:
    """Whether two quantizers are of one method, or of about one size."""
    return first["method"] == second["method"] or _apart(first["bits_per_weight"], second["bits_per_weight"]) <= LIKE_SIZE


def _apart(bits: float | None, other: float | None) -> float:
    return math.inf if bits is None or other is None else abs(bits - other)


def _between(runs: list[tuple[dict, Changes]], task: str, metric: MetricSettings) -> Iterator[tuple[str, dict]]:
    """The contrasts of all pairs of runs, which were asked the same questions."""
    pairs = {(i, j): kind for i, j in combinations(range(len(runs)), 2) if (kind := _kind(runs[i][0], runs[j][0]))}
    if not pairs:
        return
    n = len(runs[0][1].question)
    means, replicates = changes.resampled_means([one for _, one in runs], metric)
    for name in changes.METRICS:
        found = across.contrasts(means[name], replicates[name], list(pairs), metric.confidence_level)
        for ((i, j), kind), one in zip(pairs.items(), found, strict=True):
            first, second = runs[i][0], runs[j][0]
            row = {key: first[key] for key in columns(kind) if key in first} | {"task": task, "metric": name, "n": n}
            row |= dict(zip(OTHER, (second[key] for key in KINDS[kind].differ), strict=False))
            row |= dict(zip(BITS, (first["bits_per_weight"], second["bits_per_weight"]), strict=True))
            yield kind, row | vars(one) | {"draws": 1}


def columns(kind: str) -> tuple[str, ...]:
    """What a contrast is of."""
    differ, same = KINDS[kind]
    others = OTHER[: len(differ)]
    return (*(key for key in same if key != "other_than_quantizing"), "task", "metric", *differ, *others)


def _over_seeds(rows: list[dict], level: float) -> list[dict]:
    """One row where contrasts differ by their calibration seed alone: the mean, for other seeds and other questions; without
    a test, as all means over seeds.
    """
    groups: dict[tuple, list[dict]] = {}
    names = [key for kind in KINDS for key in columns(kind) if key != "calib_seed"]
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in names), []).append(row)
    return [_mean(group, level) if len(group) > 1 else group[0] for group in groups.values()]


def _mean(rows: list[dict], level: float) -> dict:
    mean = across.over_draws([row["value"] for row in rows], [row["standard_error"] for row in rows], level)
    numbers = {key: getattr(mean, key) for key in ("value", "ci_low", "ci_high", "standard_error", "draws")}
    return rows[0] | numbers | {"calib_seed": None, "p_value": None}


def _orderable(value: object) -> tuple:
    return (value is None, value if isinstance(value, (int, float)) else 0, str(value))
