"""Model against model under one quantizer, quantizer against quantizer on one model, on the questions that both were asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import sha256
from itertools import combinations, product
from typing import NamedTuple

from bitsure import changes
from bitsure.changes import Changes
from bitsure.compare import was_compared
from bitsure.config import Metric
from bitsure.metrics import MACRO, across
from bitsure.sweep import table
from bitsure.sweep.cells import Cell
from bitsure.sweep.statistics import adjusted

OTHERWISE = ("setting", "calib_data", "calib_nsamples", "calib_seqlen", "calib_seed")  # how a cell was run


class Kind(NamedTuple):
    """What two runs differ in that are set against each other, and what they have in common; columns of the sweep's table."""

    differ: str
    same: tuple[str, ...]


KINDS = {
    "contrasts": Kind("model", ("quantizer", *OTHERWISE)),
    "contrasts_of_quantizers": Kind("quantizer", ("model", "training_seed", *OTHERWISE)),
}


def contrasts(cells: list[Cell], metric: Metric) -> tuple[dict[str, list[dict]], list[str]]:
    """For each of KINDS, of each two runs by how much more the second one's mean changed; and which cells were unreadable.

    Smaller models come first, and quantizers whose bits per weight are most alike. Questions are resampled with all runs'
    answers, by their clusters. The task is the outer loop, so that its resamples are drawn once and no more than one task's
    changes are held at once. p-values are adjusted by Benjamini–Hochberg, those of each kind by themselves.
    """
    runs = [(cell, about) for cell, about in zip(cells, table.about(cells), strict=True) if cell.comparison]
    runs.sort(key=lambda run: tuple(_orderable(run[1][key]) for key in ("quantizer", *OTHERWISE, "parameters", "model")))
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
    results["contrasts_of_quantizers"].sort(key=_bits_apart)
    return {kind: adjusted(rows) for kind, rows in results.items()}, list(unread)


def _contrasts(task: str, runs: list[tuple[dict, Changes]], metric: Metric) -> Iterator[tuple[str, dict]]:
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
        if first[differ] != second[differ] and all(first[key] == second[key] for key in same):
            return kind
    return None


def _between(runs: list[tuple[dict, Changes]], task: str, metric: Metric) -> Iterator[tuple[str, dict]]:
    """The contrasts of all pairs of runs, which were asked the same questions."""
    pairs = {(i, j): kind for i, j in combinations(range(len(runs)), 2) if (kind := _kind(runs[i][0], runs[j][0]))}
    if not pairs:
        return
    n = len(runs[0][1].question)
    means, replicates = changes.resampled_means([one for _, one in runs], metric)
    for name in changes.METRICS:
        found = across.contrasts(means[name], replicates[name], list(pairs), metric.confidence_level)
        for ((i, j), kind), one in zip(pairs.items(), found, strict=True):
            differ, same = KINDS[kind]
            first, second = runs[i][0], runs[j][0]
            row = {key: first[key] for key in same} | {"task": task, "metric": name}
            row |= {differ: first[differ], "other": second[differ], "n": n}
            row |= {"bits_per_weight": first["bits_per_weight"], "other_bits_per_weight": second["bits_per_weight"]}
            yield kind, row | vars(one)


def _bits_apart(row: dict) -> float:
    bits = row["bits_per_weight"], row["other_bits_per_weight"]
    return math.inf if None in bits else abs(bits[0] - bits[1])


def _orderable(value: object) -> tuple:
    return (value is None, value if isinstance(value, (int, float)) else 0, str(value))
