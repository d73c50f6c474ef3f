"""A sweep's pictures: what a study would print, from sweep.parquet's rows alone."""

from __future__ import annotations

from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.fidelity_picture import FIDELITY_AXES, fidelity_picture
from bitsure.sweep.report.heat_map import heat_map
from bitsure.sweep.report.pareto import PARETO_AXES, pareto
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.retrieval_picture import retrieval_picture
from bitsure.sweep.report.scale_pictures import OVER_BITS, OVER_SIZES, bits_picture, scale_picture
from bitsure.sweep.report.shift_picture import shift_picture
from bitsure.sweep.report.study_row import StudyRow
from bitsure.sweep.report.task_types_picture import NAME as TASK_TYPES
from bitsure.sweep.report.task_types_picture import task_types_picture

NAMES = (*(f"scale_{metric}" for metric in OVER_SIZES), *(f"bits_{metric}" for metric in OVER_BITS))
NAMES += (
    "heat_map",
    "retrieval",
    *(axis.picture for axis in (*PARETO_AXES, *FIDELITY_AXES)),
    "shift_by_certainty",
    TASK_TYPES,
)  # every picture that there may be


def pictures(cells: list[CellResult], models: list[StudyRow], sizes: list[StudyRow], margin: float) -> list[Picture]:
    """Return every picture that the rows allow.

    Args:
        cells: The sweep's cells.
        models: A row for each model, task and metric.
        sizes: The same over training seeds.
        margin: The largest loss of accuracy to ship.
    """
    possible = [
        *(scale_picture(sizes, metric) for metric in OVER_SIZES),
        *(bits_picture(sizes, metric) for metric in OVER_BITS),
        task_types_picture(cells, models, margin),
        heat_map(models),
        retrieval_picture(models),
        *(pareto(models, axis) for axis in PARETO_AXES),
        *(fidelity_picture(models, axis) for axis in FIDELITY_AXES),
        shift_picture(sizes),
    ]
    return [picture for picture in possible if picture is not None]
