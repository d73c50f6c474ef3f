"""What Hydra calls before the first cell of a sweep and after the last: check them all, sum them all up."""

from __future__ import annotations

import json
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bitsure import composing
from bitsure.config import PROJECT
from bitsure.errors import UserError
from bitsure.rundir import read_status
from bitsure.store import write_text

LAUNCHERS = {  # the package of each, and the project's extra that brings it
    "hydra_joblib_launcher": "joblib",
    "hydra_submitit_launcher": "submitit",
    "hydra_ray_launcher": "ray",
}


class SweepCallback(Callback):
    """Stops a sweep that cannot work before its first cell, and makes its result after the last.

    Hydra prints what a callback raises and goes on, unless it is SystemExit.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _check_launcher(str(config.hydra.launcher._target_))
            cells = composing.cells(config, GlobalHydra.instance().config_loader())
            if not cells:
                return
            from bitsure import plan

            if config.plan is True or all(cell.config and cell.config.plan for cell in cells):
                plan.show(cells)
                sys.exit(0)
            _, errors = plan.look(cells, plan.Once())
            if errors:
                raise UserError("\n".join(["no cell was started:", *(f"- {error}" for error in errors)]))
        except UserError as error:
            sys.exit(f"\nError: {error}")
        sweep_dir = Path(config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        listed = [
            {"directory": str(cell.directory.relative_to(sweep_dir)), "overrides": cell.overrides, "name": cell.name}
            for cell in cells
        ]
        write_text(sweep_dir / "plan.json", json.dumps({"cells": listed}, indent=1, ensure_ascii=False))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_dir = Path(config.hydra.sweep.dir)
        if not (sweep_dir / "plan.json").is_file():
            return
        failed = failures(sweep_dir)
        GlobalHydra.instance().clear()  # it has done its work, and the result's settings are composed by another
        try:
            from bitsure import sweep

            sweep.show(sweep.finish(sweep_dir))
        except Exception as error:  # Hydra would print it and end well
            traceback.print_exc()
            failed.append(f"- the sweep's result could not be made: {error}")
        if failed:
            sys.exit("\n".join(["", f"{len(failed)} failed; the same command tries again what did:", *failed]))


def failures(sweep_dir: Path) -> list[str]:
    """A line for each cell of a sweep that is not done, or whose strict verdict is not good enough."""
    lines = []
    for cell in json.loads((sweep_dir / "plan.json").read_text())["cells"]:
        status = read_status(sweep_dir / cell["directory"])
        if status.get("state") != "done":
            why = (status.get("error") or "it left no status").splitlines()[0]
            lines.append(f"- {cell['directory']}: {status.get('state', 'not started')}: {why}")
        elif strict := _refused(sweep_dir / cell["directory"]):
            lines.append(f"- {cell['directory']}: verdict=strict: {strict}")
    return lines


def _refused(run_dir: Path) -> str | None:
    """The verdict of a run that asks for a strict one and did not get it."""
    from bitsure.verdict import NON_INFERIOR

    try:
        verdict = json.loads((run_dir / "verdict.json").read_text())
    except FileNotFoundError:  # full precision has none
        return None
    return verdict["verdict"] if verdict["strict"] and verdict["verdict"] != NON_INFERIOR else None


def _check_launcher(target: str) -> None:
    for package, extra in LAUNCHERS.items():
        if f".{package}." in target and not is_installed(package):
            raise UserError(
                f"hydra/launcher: {package} is not installed. In {PROJECT} run python -m pip install -e '.[{extra}]'"
            )


def is_installed(launcher: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{launcher}") is not None
    except ModuleNotFoundError:  # no plugin at all
        return False
