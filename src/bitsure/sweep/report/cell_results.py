"""The cells of a sweep's directory as they are now: finished, broken off, or planned only."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from bitsure.base.errors import UserError
from bitsure.run.directory import read_status

FILES = ("provenance", "quantization", "metrics", "baseline_metrics", "comparison", "costs")
LAST_LINES = 5  # of an error
NOT_STARTED = "not started"
DAMAGED = "damaged"
# what may make two cells' numbers different ones, and what of it has columns or rows of its own
SETTINGS = ("model.", "quant.", "control.", "calib.", "task.", "scoring.", "compress.", "metric.")
NOT_SETTINGS = ("model.name", "model.series", "model.training_seed", "quant.name", "calib.seed")
NOT_SETTINGS += ("task.name", "task.names", "task.include_path")


@dataclass(frozen=True)
class Cell:
    """One cell: what it was to do and how far it came; the numbers are empty unless it is done."""

    directory: Path
    name: str
    state: str  # done, not started, damaged, or what status.json says
    error: str | None
    config: dict
    model: dict  # provenance.json's
    proof: dict  # quantization.json; empty for full precision
    metrics: dict
    baseline: dict
    comparison: dict
    costs: dict  # costs.json

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def model_name(self) -> str:
        return self.model.get("name") or self.config.get("model", {}).get("name") or self.name.partition(" ")[0]

    @property
    def quantizer(self) -> str:
        return self.config.get("quant", {}).get("name") or self.name.partition(" ")[2]

    @cached_property
    def settings(self) -> dict[str, object]:
        """Every setting that SETTINGS names and NOT_SETTINGS does not, by its dotted name."""
        flat = dict(_flat(self.config))
        return {key: flat[key] for key in flat if key.startswith(SETTINGS) and key not in NOT_SETTINGS}


def is_sweep(directory: Path) -> bool:
    """Whether a directory is a sweep's and not a run's own."""
    if (directory / "plan.json").is_file():
        return True
    return not (directory / "config.yaml").is_file() and any(directory.glob("*/config.yaml"))


def read(sweep_dir: Path) -> list[Cell]:
    """Every cell, in the plan's order. Raises UserError if there is none."""
    if not is_sweep(sweep_dir):
        raise UserError(f"{sweep_dir} is no sweep's directory: it holds no plan.json and no folders with a config.yaml.")
    plan = sweep_dir / "plan.json"
    if plan.is_file():
        planned = [(sweep_dir / cell["directory"], cell["name"]) for cell in json.loads(plan.read_text())["cells"]]
    else:
        planned = [(path.parent, path.parent.name) for path in sorted(sweep_dir.glob("*/config.yaml"), key=_natural)]
    return [_read(directory, name) for directory, name in planned]


def strays(sweep_dir: Path) -> list[str]:
    """Directories of cells that the plan does not know: of a command that was another one, whose results are not counted."""
    if not (sweep_dir / "plan.json").is_file():
        return []
    plan = json.loads((sweep_dir / "plan.json").read_text())
    planned = {Path(sweep_dir, cell["directory"]).resolve() for cell in plan["cells"]}
    found = [path.parent for path in sorted(sweep_dir.rglob("status.json"), key=_natural)]
    return [str(path.relative_to(sweep_dir)) for path in found if path.resolve() not in planned]


def _read(directory: Path, name: str) -> Cell:
    status = read_status(directory)
    state, error = (status.state, status.error) if status else (NOT_STARTED, None)
    try:
        config = yaml.load((directory / "config.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        config = None
    found: dict[str, dict] = {what: {} for what in FILES}
    try:
        found |= {what: json.loads(path.read_text()) for what in found if (path := directory / f"{what}.json").is_file()}
        if state == "done" and not (found["metrics"] and config):
            raise ValueError("metrics.json or config.yaml is missing")
    except (OSError, ValueError) as wrong:
        state, error = DAMAGED, f"{wrong}; run the sweep again, or remove {directory.name}"
    numbers = [found[what] if state == "done" else {} for what in ("metrics", "baseline_metrics", "comparison", "costs")]
    model, proof = found["provenance"].get("model", {}), found["quantization"]
    return Cell(directory, name, state, _last_lines(error), config or {}, model, proof, *numbers)


def _last_lines(error: str | None) -> str | None:
    """With the first, which says what happened where the others are a traceback."""
    lines = error.strip().splitlines() if error else []
    few = lines if len(lines) <= LAST_LINES + 1 else [lines[0], "…", *lines[-LAST_LINES:]]
    return "\n".join(few) or None


def _natural(path: Path) -> list:
    """10-x after 9-x."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.parent.name)]


def _flat(node: dict, above: str = ""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
