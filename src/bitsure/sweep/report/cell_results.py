"""The cells of a sweep's directory as they are now: done, stopped early, or only planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bitsure.base.errors import UserError
from bitsure.results import Comparison, Costs, MetricsByTask, Provenance, Quantization, SweepPlan, read, read_if_there
from bitsure.results.run_files import ModelOrigin
from bitsure.run.directory import read_status

FULL_PRECISION = "none"  # the quantizer's name of a model in full precision
LAST_LINES = 5  # of an error
DONE = "done"
NOT_STARTED = "not started"
DAMAGED = "damaged"
# Settings that may change a cell's numbers; of these, some have columns or rows of their own.
SETTINGS = ("model.", "quant.", "control.", "calib.", "task.", "scoring.", "compress.", "metric.")
OF_THE_MODEL = ("model.name", "model.series", "model.training_seed")
NOT_SETTINGS = (*OF_THE_MODEL, "quant.name", "calib.seed", "task.name", "task.names", "task.include_path")


@dataclass(frozen=True)
class CellResult:
    """One cell: what was planned and how far it came; metrics, comparison and costs are empty unless it is done."""

    directory: Path
    name: str
    state: str  # done, not started, damaged, or what status.json says
    error: str | None
    config: dict[str, Any]  # config.yaml; empty if there is none
    model: ModelOrigin | None  # from provenance.json
    quantization: Quantization | None  # None for full precision
    metrics: MetricsByTask = field(default_factory=dict)
    baseline: MetricsByTask = field(default_factory=dict)
    comparison: Comparison = field(default_factory=dict)
    costs: Costs | None = None

    @property
    def done(self) -> bool:
        """Whether the cell has finished and all its results can be read."""
        return self.state == DONE

    @property
    def model_name(self) -> str:
        """The model's name: from the provenance, else from the settings, else from the plan."""
        planned = self.config.get("model", {}).get("name") or self.name.partition(" ")[0]
        return self.model.name if self.model else str(planned)

    @property
    def quantizer(self) -> str:
        """The quantizer's name: from the settings, else from the plan."""
        return self.config.get("quant", {}).get("name") or self.name.partition(" ")[2]

    @cached_property
    def settings(self) -> dict[str, object]:
        """Every setting that SETTINGS names and NOT_SETTINGS does not, by its dotted name."""
        flat = dict(_flat(self.config))
        return {key: flat[key] for key in flat if key.startswith(SETTINGS) and key not in NOT_SETTINGS}


def is_sweep(directory: Path) -> bool:
    """Return whether a directory is a sweep's and not a run's."""
    if (directory / "plan.json").is_file():
        return True
    return not (directory / "config.yaml").is_file() and any(directory.glob("*/config.yaml"))


def read_cells(sweep_dir: Path) -> list[CellResult]:
    """Read every cell of a sweep.

    Returns:
        The cells in the plan's order. A cell with a result file that does not fit its type has the state "damaged".

    Raises:
        UserError: If the directory is not a sweep's, or plan.json cannot be read.
    """
    if not is_sweep(sweep_dir):
        raise UserError(f"{sweep_dir} is no sweep's directory: it holds no plan.json and no folders with a config.yaml.")
    plan = read_if_there(sweep_dir / "plan.json", SweepPlan)
    if plan:
        return [_read_cell(sweep_dir / cell.directory, cell.name) for cell in plan.cells]
    configs = sorted(sweep_dir.glob("*/config.yaml"), key=_natural_order)
    return [_read_cell(path.parent, path.parent.name) for path in configs]


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
    costs: Costs | None = None


def _read_cell(directory: Path, name: str) -> CellResult:
    status = read_status(directory)
    state: str
    state, error = (status.state, status.error) if status else (NOT_STARTED, None)
    config, files = _read_config(directory), _Files()
    try:
        files = _read_files(directory)
        if state == DONE and not (files.metrics and config):
            raise UserError("metrics.json or config.yaml is missing.")
    except UserError as problem:
        state, error = DAMAGED, f"{problem} Run the sweep again, or remove {directory.name}."
    model = files.provenance.model if files.provenance else None
    about = CellResult(directory, name, state, _shortened(error), config, model, files.quantization)
    if state != DONE:
        return about
    numbers = (files.metrics or {}, files.baseline or {}, files.comparison or {}, files.costs)
    return CellResult(directory, name, state, about.error, config, model, files.quantization, *numbers)


def _read_config(directory: Path) -> dict[str, Any]:
    """Return config.yaml as plain data; empty if it cannot be read or is not a run's."""
    try:
        text = (directory / "config.yaml").read_text(encoding="utf-8")
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    # A foreign file may hold anything. A group that is no mapping has no settings.
    return {str(name): group for name, group in config.items() if isinstance(group, dict)} if isinstance(config, dict) else {}


def _read_files(directory: Path) -> _Files:
    """Read the result files that are there. Raises UserError for one that does not fit its type."""
    return _Files(
        provenance=read_if_there(directory / "provenance.json", Provenance),
        quantization=read_if_there(directory / "quantization.json", Quantization),
        metrics=read_if_there(directory / "metrics.json", MetricsByTask),
        baseline=read_if_there(directory / "baseline_metrics.json", MetricsByTask),
        comparison=read_if_there(directory / "comparison.json", Comparison),
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


def own_metrics(cells: Sequence[CellResult]) -> list[str]:
    """Return the names of the users' own metrics that finished cells have numbers of."""
    settings = [cell.config.get("metric") for cell in cells if cell.done]
    named = [one.get("own") for one in settings if isinstance(one, dict)]
    return sorted({str(name) for names in named if isinstance(names, dict) for name in names})
