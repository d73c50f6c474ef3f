"""What a sweep may say across models: how much changes differ, model against model, and over random draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from bitsure.metrics.across import heterogeneity, over_draws
from bitsure.metrics.significance import benjamini_hochberg
from bitsure.sweep.report.sweep_table import FULL

STUDY = {  # the study's metrics, in its order
    "accuracy": "accuracy",
    "expected_calibration_error": "calibration error",
    "confidence": "confidence",
    "true_label_prob": "true-label probability",
    "entropy": "entropy",
}
TESTED = ("true_label_prob", "accuracy", "confidence", "nll", "expected_calibration_error")
# the random draws that a sweep may repeat, the inner ones first, and the columns by which what is drawn is the same
CALIBRATION = "calibration seeds"
TRAINING = "training seeds"
SAME = ("series", "parameters", "quantizer", "method", "setting", "calib_data", "calib_nsamples", "calib_seqlen")
SAME += ("task", "metric")


def rows(table: pa.Table, metrics: Iterable[str]) -> list[dict]:
    """The finished cells' rows of some metrics, as dicts."""
    wanted = pc.and_(pc.is_in(table["metric"], pa.array(list(metrics))), pc.equal(table["status"], "done"))
    return [row for row in table.filter(wanted).to_pylist() if row["value"] is not None]


def over_calibration(found: list[dict], level: float) -> list[dict]:
    """One row for each model, task and metric: the mean over the calibration's seeds where there are several."""
    return _collapse(found, (*SAME, "model", "training_seed"), "calib_seed", CALIBRATION, level)


def over_training(found: list[dict], level: float) -> list[dict]:
    """One row for each size of a series: the mean over its training seeds where there are several."""
    return _collapse(found, SAME, "training_seed", TRAINING, level)


def _collapse(found: list[dict], same: Sequence[str], draw: str, what: str, level: float) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in same), []).append(row)
    return [row for group in groups.values() for row in _mean_over(group, draw, what, level)]


def _mean_over(group: list[dict], draw: str, what: str, level: float) -> list[dict]:
    """The mean of rows that differ by a draw alone; as they are, where that cannot be told or an error is not known."""
    if len(group) == 1 or len({row[draw] for row in group} - {None}) < len(group):
        return group
    no_test = dict.fromkeys(("test", "tests", "p_value", "p_adjusted", "effect", "effect_size"))
    one = group[0] | no_test | {"draws": {**group[0].get("draws", {}), what: len(group)}, draw: None}
    for value, prefix in (("value", ""), ("delta", "delta_")):
        values, errors = ([row[name] for row in group] for name in (value, f"{prefix}standard_error"))
        if None in values or None in errors:
            if value == "value":
                return group
            continue
        mean = over_draws(values, errors, level)
        one |= {value: mean.value, f"{prefix}ci_low": mean.ci_low, f"{prefix}ci_high": mean.ci_high}
        one |= {f"{prefix}standard_error": mean.standard_error, f"{prefix}between": mean.between}
    return [one]


def draws(models: list[dict], sizes: list[dict]) -> list[dict]:
    """What was averaged over random draws, by model and by size: the difference's mean, its interval, how much draws differ."""
    once = {id(row): row for row in (*models, *sizes) if row["metric"] in TESTED}.values()
    keys = ("series", "parameters", "quantizer", "setting", "task", "metric", "delta", "delta_ci_low", "delta_ci_high")
    return [
        {"model": "" if TRAINING in row["draws"] else row["model"]}
        | {key: row[key] for key in keys}
        | {"between_draws": row["delta_between"], "draws": said(row["draws"])}
        for row in once
        if row.get("draws") and row.get("delta_between") is not None
    ]


def said(drawn: dict[str, int]) -> str:
    """Over how many draws of what a row is the mean, such as 5 calibration seeds, 3 training seeds; empty for none."""
    return ", ".join(f"{n} {what}" for what, n in drawn.items())


def heterogeneities(found: list[dict]) -> list[dict]:
    """For each quantizer, task and metric: do the models' changes differ by more than their errors explain?

    found: rows of single models. p-values are adjusted over all of these (Benjamini–Hochberg): they are exploratory.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        if row["quantizer"] != FULL and row["delta"] is not None and row["delta_standard_error"] is not None:
            key = tuple(row[name] for name in ("quantizer", "setting", "task", "metric"))
            groups.setdefault(key, []).append(row)
    results = []
    for (quantizer, setting, task, metric), group in groups.items():
        spread = heterogeneity([row["delta"] for row in group], [row["delta_standard_error"] for row in group])
        if spread and len({row["model"] for row in group}) == len(group):
            of = {"quantizer": quantizer, "setting": setting, "task": task, "metric": metric, "models": spread.models}
            ends = {"smallest": min(row["delta"] for row in group), "largest": max(row["delta"] for row in group)}
            numbers = {"q": spread.q, "i_squared": spread.i_squared, "tau": spread.tau, "p_value": spread.p_value}
            results.append(of | ends | numbers)
    return adjusted(results)


def adjusted(results: list[dict]) -> list[dict]:
    """With `p_adjusted` beside each `p_value` that there is (Benjamini–Hochberg)."""
    tested = [one for one in results if one["p_value"] is not None]
    for one, p in zip(tested, benjamini_hochberg([one["p_value"] for one in tested]), strict=True):
        one["p_adjusted"] = p
    return results
