"""What Hydra calls before the first cell of a sweep and after the last: check them all, sum them all up."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bitsure.base.errors import UserError
from bitsure.base.files import write_text
from bitsure.base.memo import Memo
from bitsure.config.paths import PROJECT
from bitsure.run.directory import read_status
from bitsure.sweep.launch import composing

LAUNCHERS = {  # the package of each, and the project's extra that brings it
    "hydra_joblib_launcher": "joblib",
    "hydra_submitit_launcher": "submitit",
    "hydra_ray_launcher": "ray",
}
_held = ExitStack()  # the lock of the sweep that goes on; not the callback's, which launchers pickle


class SweepCallback(Callback):
    """Stops a sweep that cannot work before its first cell, and makes its result after the last.

    Hydra prints what a callback raises and goes on, unless it is SystemExit.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _check(config)
        except UserError as error:
            sys.exit(f"\nError: {error}")
        except Exception:  # with Hydra the cells would start unchecked
            traceback.print_exc()
            sys.exit("\nError: no cell was started: the sweep could not be checked, as said above.")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with _held:
            self._end(config)

    def _end(self, config: DictConfig) -> None:
        sweep_dir = Path(config.hydra.sweep.dir)
        if not (sweep_dir / "plan.json").is_file() and not any(sweep_dir.glob("*/status.json")):
            return  # no cell of ours was to run, such as with plan=true under another sweeper
        failed = failures(sweep_dir)
        GlobalHydra.instance().clear()  # it has done its work, and the result's settings are composed by another
        try:
            from bitsure.sweep.report.building import finish_sweep
            from bitsure.sweep.report.sweep_terminal import show_sweep

            show_sweep(finish_sweep(sweep_dir))
        except Exception as error:  # Hydra would print it and end well
            traceback.print_exc()
            failed.append(f"- the sweep's result could not be made: {error}")
        if failed:
            sys.exit("\n".join(["", f"{len(failed)} failed; the same command tries again what did:", *failed]))


def _check(config: DictConfig) -> None:
    """Check every cell, lock the sweep's directory and write plan.json, or show the plan and exit.

    Raises UserError with all that is wrong.
    """
    _check_launcher(str(config.hydra.launcher._target_))
    cells = composing.cells(config, GlobalHydra.instance().config_loader())
    if not cells:
        return
    from bitsure.sweep.launch import dry_run as plan

    on_nodes = is_elsewhere(config.hydra.launcher)
    if config.plan is True or all(cell.config and cell.config.plan for cell in cells):
        plan.show(cells, on_nodes)
        sys.exit(0)
    sweep_dir = Path(config.hydra.sweep.dir)
    if sweep_dir.is_dir():  # before its cells are looked at
        _lock(sweep_dir)
    planned, errors = plan.look(cells, Memo(), on_nodes)
    errors += [] if on_nodes else plan.out_of_reach(planned)  # nodes have a network of their own
    if errors:
        raise UserError("\n".join(["no cell was started:", *(f"- {error}" for error in errors)]))
    sweep_dir.mkdir(parents=True, exist_ok=True)
    _lock(sweep_dir)
    listed = [
        {"directory": _inside(cell.directory, sweep_dir), "overrides": cell.overrides, "name": cell.name} for cell in cells
    ]
    write_text(sweep_dir / "plan.json", json.dumps({"cells": listed}, indent=1, ensure_ascii=False))


def _lock(sweep_dir: Path) -> None:
    """Keep other sweeps out of a directory until this one, or its process, ends; nothing if they are kept out already."""
    path = (sweep_dir / ".sweep.lock").resolve()
    try:
        _held.enter_context(filelock.FileLock(path, is_singleton=True).acquire(timeout=0))
    except filelock.Timeout:
        raise UserError(
            f"{sweep_dir} is in use by a sweep that goes on now and holds {path.name} there. Wait for it, or choose another "
            "hydra.sweep.dir."
        ) from None


def _inside(directory: Path, sweep_dir: Path) -> str:
    """A cell's directory as plan.json has it: from the sweep's, but for an absolute hydra.sweep.subdir elsewhere."""
    return str(directory.relative_to(sweep_dir) if directory.is_relative_to(sweep_dir) else directory)


def failures(sweep_dir: Path) -> list[str]:
    """A line for each cell of a sweep that is not done, or whose strict verdict is not good enough.

    Without plan.json, as another sweeper than Hydra's own leaves it, the cells are the folders that have a status.
    """
    if (sweep_dir / "plan.json").is_file():
        directories = [cell["directory"] for cell in json.loads((sweep_dir / "plan.json").read_text())["cells"]]
    else:
        directories = [path.parent.name for path in sorted(sweep_dir.glob("*/status.json"))]
    lines = []
    for directory in directories:
        status = read_status(sweep_dir / directory)
        if status is None:
            lines.append(f"- {directory}: not started: it left no status")
        elif status.state != "done":
            why = (status.error or "its process ended without a word").splitlines()[0]
            lines.append(f"- {directory}: {status.state}: {why}")
        elif strict := _refused(sweep_dir / directory):
            lines.append(f"- {directory}: verdict=strict: {strict}")
    return lines


def _refused(run_dir: Path) -> str | None:
    """The verdict of a run that asks for a strict one and did not get it."""
    from bitsure.comparison.non_inferiority import NON_INFERIOR

    try:
        verdict = json.loads((run_dir / "verdict.json").read_text())
    except FileNotFoundError:  # full precision has none
        return None
    return verdict["verdict"] if verdict["strict"] and verdict["verdict"] != NON_INFERIOR else None


def is_elsewhere(launcher: DictConfig) -> bool:
    """Whether cells run on other machines than this one: Slurm's nodes, or a Ray cluster's."""
    target = str(launcher._target_)
    return target.endswith(".SlurmLauncher") or (target.endswith(".RayLauncher") and launcher.ray.init.address is not None)


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
