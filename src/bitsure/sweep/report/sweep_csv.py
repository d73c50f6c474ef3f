"""The tables of a sweep as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from bitsure.sweep.report.contrasts import ContrastKind, RunContrast
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.run_columns import COSTS
from bitsure.sweep.report.study_row import StudyRow
from bitsure.sweep.report.sweep_statistics import ModelSpread

CHANGE = ("delta", "delta_ci_low", "delta_ci_high")
SPREAD = (
    "quantizer",
    "setting",
    "task",
    "metric",
    "models",
    "smallest",
    "largest",
    "q",
    "i_squared",
    "tau",
    "p_value",
    "p_adjusted",
)
NUMBER = ("task", "metric", "baseline", "value", "ci_low", "ci_high", "n", *CHANGE, "p_adjusted")
STUDY = ("model", "parameters", "quantizer", "setting", "bits_per_weight", "size_bytes", *NUMBER)
DRAWS = ("series", "parameters", "quantizer", "setting", "task", "metric", *CHANGE)
MODEL = ("series", "parameters", "model", "quantizer", "setting", "bits_per_weight", "bits_per_weight_coded", "size_bytes")
POINT = (*MODEL, *COSTS, "task", "metric", "value", "ci_low", "ci_high", "n", "baseline", *CHANGE)
ESTIMATE = ("value", "ci_low", "ci_high", "standard_error", "p_value", "p_adjusted", "draws")


def study_csv(rows: list[StudyRow]) -> str:
    """Return tables/study.csv: the study's metrics, corrected and as published."""
    return _csv(STUDY, (_values(row, STUDY) for row in sorted(rows, key=lambda row: row.order)))


def spreads_csv(spreads: list[ModelSpread]) -> str:
    """Return tables/heterogeneity.csv."""
    return _csv(SPREAD, (_values(spread, SPREAD) for spread in spreads))


def contrasts_csv(contrasts: list[RunContrast], kind: ContrastKind) -> str:
    """Return the table of one kind of contrast."""
    same = [key for key in kind.same if key not in ("conditions", "calib_seed")]
    others = ("other", "other_setting")[: len(kind.differ)]
    bits = ("bits_per_weight", "other_bits_per_weight")
    rows = (
        [
            *_values(contrast.first, same),
            contrast.calib_seed,
            contrast.task,
            contrast.metric,
            *_values(contrast.first, kind.differ),
            *_values(contrast.second, kind.differ),
            contrast.n,
            contrast.first.bits_per_weight,
            contrast.second.bits_per_weight,
            *_values(contrast, ESTIMATE),
        ]
        for contrast in contrasts
    )
    return _csv((*same, "calib_seed", "task", "metric", *kind.differ, *others, "n", *bits, *ESTIMATE), rows)


def draws_csv(rows: list[StudyRow]) -> str:
    """Return tables/draws.csv: means over random draws."""
    lines = ([row.single_model, *_values(row, DRAWS), row.delta_between_draws, row.draws_label] for row in rows)
    return _csv(("model", *DRAWS, "between_draws", "draws"), lines)


def picture_csv(picture: Picture) -> str:
    """Return the numbers in a picture."""
    if picture.on_front is None:
        return _csv((*POINT, "draws"), ([*_values(row, POINT), row.draws_label] for row in picture.rows))
    rows = zip(picture.rows, picture.on_front, strict=True)
    return _csv((*POINT, "on_front", "draws"), ([*_values(row, POINT), front, row.draws_label] for row, front in rows))


def _values(row: object, columns: Iterable[str]) -> list[object]:
    return [getattr(row, column) for column in columns]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()
