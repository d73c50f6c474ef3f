"""The cells of a sweep's directory as they are now: done, stopped early, or only planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config.labels import model_labels
from bitsure.config.model import ModelSettings
from bitsure.metrics.metric_names import MACRO
from bitsure.records.directory_kinds import is_sweep, wrong_directory
from bitsure.results import (
    Comparison,
    Costs,
    MetricsByTask,
    Provenance,
    Quantization,
    Status,
    SweepPlan,
    Verdict,
    read,
    read_if_there,
)
from bitsure.results.run_files import ModelOrigin, PlannedCell, state_in_words
from bitsure.sweep.report.cell_settings import read_cell_settings

FULL_PRECISION = "none"  # the quantizer's name of a model in full precision
LAST_LINES = 5  # of an error
DONE = "done"
NOT_STARTED = "not started"
DAMAGED = "damaged"
# Settings that may change a cell's numbers; of these, some have columns or rows of their own.
SETTINGS = ("model.", "quant.", "control.", "calib.", "task.", "scoring.", "compress.", "metric.")
MODEL_IDENTITY = ("model.name", "model.series", "model.training_seed")
NOT_SETTINGS = (*MODEL_IDENTITY, "quant.name", "calib.seed", "task.name", "task.names", "task.include_path")
ROTATION_SEED = "quant.rotation.seed"


@dataclass(frozen=True)
class CellResult:
    """One cell: what was planned and how far it came; metrics, comparison and costs are empty unless it is done."""

    directory: Path
    name: str
    path: str  # of the directory, seen from the sweep's
    started: float | None  # seconds since 1970
    model_name: str
    label: str  # what the quantizer was asked for as, such as w4a8kv4; `quantizer` where that does not tell quantizers apart
    state: str  # done, not started, damaged, or what status.json says
    error: str | None
    config: dict[str, Any]  # config.yaml; empty if there is none
    model: ModelOrigin | None  # from provenance.json
    quantization: Quantization | None  # None for full precision
    metrics: MetricsByTask = field(default_factory=dict)
    baseline: MetricsByTask = field(default_factory=dict)
    comparison: Comparison = field(default_factory=dict)
    verdict: Verdict | None = None
    costs: Costs | None = None
    rotates_with_text: bool = False  # in all cells of its quantizer, so that a draw of the text is one of the rotations

    @property
    def done(self) -> bool:
        """Whether the cell has finished and all its results can be read."""
        return self.state == DONE

    @property
    def state_in_words(self) -> str:
        """The state; `stopped` for a cell that was interrupted."""
        return state_in_words(self.state, self.error)

    @property
    def report_link(self) -> str:
        """Where the cell's page lies, as an address seen from the sweep's page; empty where it has none."""
        return f"{quote(self.path)}/report.html" if (self.directory / "report.html").is_file() else ""

    @property
    def tasks(self) -> list[str]:
        """The tasks that have results."""
        return [task for task in self.metrics if task != MACRO]

    @property
    def quantizer(self) -> str:
        """The quantizer's own name: from the settings, else from the plan."""
        return _quantizer_name(self.config, self.name)

    @cached_property
    def settings(self) -> dict[str, object]:
        """Every setting that SETTINGS names and NOT_SETTINGS does not, by its dotted name.

        Rotations that are drawn with the calibration text are a part of that draw.
        """
        flat = dict(_flat(self.config))
        if self.rotates_with_text:
            flat.pop(ROTATION_SEED, None)
        return {key: flat[key] for key in flat if key.startswith(SETTINGS) and key not in NOT_SETTINGS}


def read_cells(sweep_dir: Path) -> list[CellResult]:
    """Read every cell of a sweep.

    Returns:
        The cells in the plan's order. A cell with a result file that does not fit its type has the state "damaged".

    Raises:
        UserError: If the directory is not a sweep's, or plan.json cannot be read.
    """
    if not is_sweep(sweep_dir):
        raise wrong_directory(sweep_dir, "a sweep's is needed")
    plan = read_if_there(sweep_dir / "plan.json", SweepPlan)
    if plan:
        planned = [(sweep_dir / cell.directory, cell) for cell in plan.cells]
    else:
        folders = [path.parent for path in sorted(sweep_dir.glob("*/config.yaml"), key=_natural_order)]
        planned = [(folder, PlannedCell(directory=folder.name, overrides=[], name=folder.name)) for folder in folders]
    if not planned:
        raise UserError(f"{sweep_dir / 'plan.json'} names no cells.")
    memo = Memo()
    return _told_apart(_drawn_together([_read_cell(directory, cell, memo) for directory, cell in planned]))


def _drawn_together(cells: list[CellResult]) -> list[CellResult]:
    """Return the cells, those marked whose quantizer rotates by the seed of the text in every cell, and in more than one draw.

    One cell does not tell: a rotation that is the same in all draws has the seed of one of them.
    """
    draws: dict[str, set[tuple[object, object]]] = {}  # quantizer → seeds of the text and of the rotation
    for cell in cells:
        if cell.config:
            rotation = cell.config.get("quant", {}).get("rotation") or {}
            draws.setdefault(cell.quantizer, set()).add((cell.config.get("calib", {}).get("seed"), rotation.get("seed")))
    together = {name for name, seeds in draws.items() if len(seeds) > 1 and all(text == own for text, own in seeds)}
    return [replace(cell, rotates_with_text=cell.quantizer in together) for cell in cells]


def _told_apart(cells: list[CellResult]) -> list[CellResult]:
    """Return the cells with labels that tell their models and their quantizers apart."""
    models: dict[tuple[str, str], ModelSettings] = {}  # name and fingerprint (or directory) → where such a model was first
    keys = [_model_key(cell, models) for cell in cells]
    distinct = dict(zip(models, model_labels(list(models.values())), strict=True))
    labels: dict[str, set[str]] = {}
    quantizers: dict[str, set[str]] = {}
    for cell in cells:
        labels.setdefault(cell.quantizer, set()).add(cell.label)
        quantizers.setdefault(cell.label, set()).add(cell.quantizer)
    ambiguous = {name for name, own in labels.items() if len(own) > 1 or any(len(quantizers[label]) > 1 for label in own)}
    return [
        replace(
            cell,
            model_name=distinct.get(key, cell.model_name),
            label=cell.quantizer if cell.quantizer in ambiguous else cell.label,
        )
        for cell, key in zip(cells, keys, strict=True)
    ]


def _model_key(cell: CellResult, models: dict[tuple[str, str], ModelSettings]) -> tuple[str, str]:
    """Return what tells a cell's model from others, and add a new one to `models` where its directory is known."""
    settings = cell.config.get("model", {})
    path, repo = settings.get("path"), settings.get("repo")
    key = cell.model_name, cell.model.fingerprint if cell.model else str(path or repo)
    if isinstance(path or repo, str) and not (path and repo):
        models.setdefault(key, ModelSettings(name=cell.model_name, path=path, repo=repo))
    return key


def unplanned(sweep_dir: Path) -> list[str]:
    """Return directories of cells that are not in the plan: another command left them, and their results do not count."""
    if not (sweep_dir / "plan.json").is_file():
        return []
    plan = read(sweep_dir / "plan.json", SweepPlan)
    planned = {Path(sweep_dir, cell.directory).resolve() for cell in plan.cells}
    directories = [path.parent for path in sorted(sweep_dir.rglob("status.json"), key=_natural_order)]
    return [str(path.relative_to(sweep_dir)) for path in directories if path.resolve() not in planned]


class _Files(NamedTuple):
    """The result files of a cell's directory."""

    provenance: Provenance | None = None
    quantization: Quantization | None = None
    metrics: MetricsByTask | None = None
    baseline: MetricsByTask | None = None
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    costs: Costs | None = None


def _read_cell(directory: Path, cell: PlannedCell, memo: Memo) -> CellResult:
    state: str
    state, error, config, files, status = NOT_STARTED, None, {}, _Files(), None
    try:
        if status := read_if_there(directory / "status.json", Status):
            state, error = status.state, status.error
        config = read_cell_settings(directory / "config.yaml", memo)
        files = _read_files(directory)
        if state == DONE and not (files.metrics and config):
            raise UserError("metrics.json or config.yaml is missing.")
    except UserError as problem:
        state, error = DAMAGED, f"{problem} Run the sweep again, or remove {directory.name}."
    model = files.provenance.model if files.provenance else None
    labels = cell.labels or (files.provenance.labels if files.provenance else None)
    planned = labels.model if labels else cell.name.partition(" ")[0]
    about = CellResult(
        directory=directory,
        name=cell.name,
        path=cell.directory,
        started=status.started if status else None,
        model_name=model.name if model else str(config.get("model", {}).get("name") or planned),
        label=labels.quantizer if labels else _quantizer_name(config, cell.name),
        state=state,
        error=_shortened(error),
        config=config,
        model=model,
        quantization=files.quantization,
    )
    if state != DONE:
        return about
    return replace(
        about,
        metrics=files.metrics or {},
        baseline=files.baseline or {},
        comparison=files.comparison or {},
        verdict=files.verdict,
        costs=files.costs,
    )


def _quantizer_name(config: Mapping[str, Any], planned: str) -> str:
    return config.get("quant", {}).get("name") or planned.partition(" ")[2]


def _read_files(directory: Path) -> _Files:
    """Read the result files that are there. Raises UserError for one that does not fit its type."""
    return _Files(
        provenance=read_if_there(directory / "provenance.json", Provenance),
        quantization=read_if_there(directory / "quantization.json", Quantization),
        metrics=read_if_there(directory / "metrics.json", MetricsByTask),
        baseline=read_if_there(directory / "baseline_metrics.json", MetricsByTask),
        comparison=read_if_there(directory / "comparison.json", Comparison),
        verdict=read_if_there(directory / "verdict.json", Verdict),
        costs=read_if_there(directory / "costs.json", Costs),
    )


def _shortened(error: str | None) -> str | None:
    """Return an error's first line, which says what happened, and its last ones, which end a traceback."""
    lines = error.strip().splitlines() if error else []
    few = lines if len(lines) <= LAST_LINES + 1 else [lines[0], "…", *lines[-LAST_LINES:]]
    return "\n".join(few) or None


def _natural_order(path: Path) -> list[int | str]:
    """Return a sort key that puts a cell 10-x after 9-x."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.parent.name)]


def _flat(node: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each leaf of nested settings with its dotted name."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
