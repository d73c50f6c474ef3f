"""Model against model under one quantizer, on the questions that both were asked."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations, product

from bitsure import changes
from bitsure.changes import Changes
from bitsure.compare import was_compared
from bitsure.config import Metric
from bitsure.metrics import MACRO, across
from bitsure.sweep import table
from bitsure.sweep.cells import Cell
from bitsure.sweep.statistics import adjusted

SAME = ("quantizer", "setting", "calib_data", "calib_nsamples", "calib_seqlen", "calib_seed")  # of what is compared


def contrasts(cells: list[Cell], metric: Metric) -> tuple[list[dict], list[str]]:
    """Of each two models by how much more the second one's mean changed, smaller models first; and which cells were unreadable.

    Questions are resampled with all models' answers, by their clusters. The task is the outer loop, so that its resamples are
    drawn once and no more than one task's changes are held at once. p-values are adjusted by Benjamini–Hochberg.
    """
    runs = [(cell, about) for cell, about in zip(cells, table.about(cells), strict=True) if cell.comparison]
    runs.sort(key=lambda run: tuple(_orderable(run[1][key]) for key in (*SAME, "parameters", "model")))
    tasks = sorted({task for cell, _ in runs for task, one in cell.comparison.items() if task != MACRO and was_compared(one)})
    results, unread = [], {}
    for task in tasks:
        found = []
        for cell, about in runs:
            if was_compared(cell.comparison.get(task, {})):
                try:
                    found.append((about, changes.read(cell.directory / "changes.parquet", task)))
                except (OSError, ValueError):
                    unread[cell.name] = None
        results += _contrasts(task, found, metric)
    return adjusted(results), list(unread)


def _contrasts(task: str, runs: list[tuple[dict, Changes]], metric: Metric) -> list[dict]:
    """Those of one task; nearly always all runs have the same questions, which are then resampled for all at once."""
    groups: dict[bytes, list[int]] = {}
    for i, (_, one) in enumerate(runs):
        groups.setdefault(sha256(one.question.tobytes()).digest(), []).append(i)
    results = []
    for members in groups.values():
        pairs = _pairs(runs, members, members)
        results += _between([runs[i] for i in members], [(members.index(i), members.index(j)) for i, j in pairs], task, metric)
    for some, others in combinations(groups.values(), 2):
        for pair in _pairs(runs, some, others):
            (first, one), (second, other) = (runs[i] for i in sorted(pair))
            both = changes.in_common(one, other)
            if len(both[0].question):
                results += _between(list(zip((first, second), both, strict=True)), [(0, 1)], task, metric)
    return results


def _pairs(runs: list[tuple[dict, Changes]], some: list[int], others: list[int]) -> list[tuple[int, int]]:
    """Indices of two models under the same quantizer, each pair once."""
    return [
        (i, j)
        for i, j in (combinations(some, 2) if some is others else product(some, others))
        if runs[i][0]["model"] != runs[j][0]["model"] and all(runs[i][0][key] == runs[j][0][key] for key in SAME)
    ]


def _between(runs: list[tuple[dict, Changes]], pairs: list[tuple[int, int]], task: str, metric: Metric) -> list[dict]:
    """The contrasts of pairs of runs that were asked the same questions."""
    if not pairs:
        return []
    n, results = len(runs[0][1].question), []
    means, replicates = changes.resampled_means([one for _, one in runs], metric)
    for name in changes.METRICS:
        found = across.contrasts(means[name], replicates[name], pairs, metric.confidence_level)
        for (i, j), one in zip(pairs, found, strict=True):
            of = {key: runs[i][0][key] for key in SAME} | {"task": task, "metric": name}
            results.append(of | {"model": runs[i][0]["model"], "other": runs[j][0]["model"], "n": n} | vars(one))
    return results


def _orderable(value: object) -> tuple:
    return (value is None, value if isinstance(value, (int, float)) else 0, str(value))
