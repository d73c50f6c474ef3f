"""Model against model under one quantizer, on the questions that both were asked."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations

from bitsure import changes
from bitsure.changes import Changes
from bitsure.compare import was_compared
from bitsure.config import Metric
from bitsure.metrics import MACRO
from bitsure.metrics.across import contrast
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
    together: dict[bytes, list[int]] = {}
    for i, (_, one) in enumerate(runs):
        together.setdefault(sha256(one.question.tobytes()).digest(), []).append(i)
    means: dict[int, tuple[dict, dict]] = {}
    group_of = {}
    for group, members in enumerate(together.values()):
        values, replicates = changes.resampled_means([runs[i][1] for i in members], metric)
        for k, i in enumerate(members):
            group_of[i] = group
            means[i] = tuple({name: found[name][..., k] for name in changes.METRICS} for found in (values, replicates))
    results = []
    for i, j in combinations(range(len(runs)), 2):
        (first, one), (second, other) = runs[i], runs[j]
        if first["model"] == second["model"] or any(first[key] != second[key] for key in SAME):
            continue
        pair, n = (means[i], means[j]), len(one.question)
        if group_of[i] != group_of[j]:
            one, other = changes.in_common(one, other)
            if not (n := len(one.question)):
                continue
            both = changes.resampled_means([one, other], metric)
            pair = tuple(tuple({name: found[name][..., k] for name in changes.METRICS} for found in both) for k in (0, 1))
        results += _pair(task, first, second, pair, n, metric.confidence_level)
    return results


def _pair(task: str, first: dict, second: dict, pair: tuple, n: int, level: float) -> list[dict]:
    (values, replicates), (other_values, other_replicates) = pair
    of = {key: first[key] for key in SAME} | {"task": task, "model": first["model"], "other": second["model"], "n": n}
    results = []
    for name in changes.METRICS:
        found = contrast(replicates[name], other_replicates[name], (float(values[name]), float(other_values[name])), level)
        results.append(of | {"metric": name} | vars(found))
    return results


def _orderable(value: object) -> tuple:
    return (value is None, value if isinstance(value, (int, float)) else 0, str(value))
