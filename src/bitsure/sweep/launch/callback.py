"""What Hydra calls before the first cell of a sweep and after the last: check all cells, then sum them up."""

from __future__ import annotations

import sys
import traceback
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from bitsure import results
from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import make_writable
from bitsure.base.memo import Memo
from bitsure.base.progress import working
from bitsure.config import own_code
from bitsure.config.extras import how_to_install, run_extra
from bitsure.config.server_settings import ServerAddress
from bitsure.results import Status, SweepPlan, Verdict
from bitsure.results.run_files import PlannedCell, state_in_words
from bitsure.sweep.launch.composed_cell import ComposedCell
from bitsure.sweep.launch.composing import compose_cells, repeated

LAUNCHERS = {  # the package of each, and the project's extra that brings it
    "hydra_joblib_launcher": "joblib",
    "hydra_submitit_launcher": "submitit",
    "hydra_ray_launcher": "ray",
}
# What holds from the check of a command's cells to its end: the lock on the sweep's directory, and how its sweeper works. It
# belongs to the process: launchers pickle the callback with the config, and a lock cannot be pickled.
_until_the_end = ExitStack()


class SweepCallback(Callback):
    """Stops a sweep that cannot work before its first cell, and makes its report after the last.

    Hydra prints what a callback raises and goes on, unless it is SystemExit.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every cell. Exit with all that is wrong, before any cell is started."""
        try:
            with run_extra("main.py"):
                _prepare(config)
        except UserError as error:
            sys.exit(f"Error: {error}")
        except Exception:  # noqa: BLE001 - whatever it is, Hydra would start the cells unchecked
            traceback.print_exc()
            sys.exit("Error: no cell was started: the sweep could not be checked, see above.")

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with a message if a run's directory is not writable, or an address has a key, which Hydra would write there."""
        try:
            for section in ("model", "quant"):
                if url := OmegaConf.select(config, f"{section}.url"):
                    ServerAddress(section, url, None)
            make_writable(Path(config.hydra.run.dir))
        except UserError as error:
            sys.exit(f"Error: {error}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the sweep's report. Exit with the cells that failed."""
        with _until_the_end:
            _finish(Path(config.hydra.sweep.dir))


def _prepare(config: DictConfig) -> None:
    """Check every cell, lock the sweep's directory and write plan.json; or show the plan and exit.

    Raises:
        UserError: With everything that is wrong.
    """
    own_code.make_importable(config.hydra.runtime.config_sources)
    launcher = config.hydra.launcher
    _check_installed(str(launcher._target_))
    cells, errors = compose_cells(config, GlobalHydra.instance().config_loader())
    if not cells and not errors.numbers:
        return  # another sweeper chooses its cells as it goes
    from bitsure.sweep.launch import dry_run, printed_plan  # heavy: --help stays quick

    on_nodes = is_elsewhere(launcher)
    later = repeated(cells)
    all_cells, cells = cells, [cell for cell in cells if cell.number not in later]
    if later:
        terminal.console().print(
            f"{len(later)} of {len(all_cells)} cells are left out: their quantizers read no calibration text, in which alone "
            "they differ from an earlier one."
        )
    if config.plan is True or (cells and all(cell.config.plan for cell in cells)):
        printed_plan.show(cells, errors, on_nodes)
        sys.exit(0)
    sweep_dir = Path(config.hydra.sweep.dir)
    if sweep_dir.is_dir():  # locked before its cells are inspected
        _lock(sweep_dir)
    inspected = dry_run.inspect_cells(cells, errors, Memo(), on_nodes)
    lines = errors.lines() + ([] if on_nodes else dry_run.unreachable(inspected))  # nodes have a network of their own
    if lines:
        raise UserError("\n".join(["no cell was started:", *(f"- {line}" for line in lines)]))
    make_writable(sweep_dir)
    _lock(sweep_dir)
    directories = {cell.number: _directory(cell, sweep_dir) for cell in all_cells}
    planned = [
        PlannedCell(directory=directories[cell.number], overrides=cell.overrides, name=cell.name, labels=cell.labels)
        for cell in cells
    ]
    left_out = {directories[number]: directories[earlier.number] for number, earlier in later.items()}
    results.write(sweep_dir / "plan.json", SweepPlan(cells=planned, repeated=left_out))
    # Hydra would compose every cell once more before the first one starts, a fifth of a second each, to see whether it can.
    _until_the_end.callback(setattr, BasicSweeper, "validate_batch_is_legal", BasicSweeper.validate_batch_is_legal)
    BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]


def _directory(cell: ComposedCell, sweep_dir: Path) -> str:
    inside = cell.directory.is_relative_to(sweep_dir)  # unless hydra.sweep.subdir is an absolute path elsewhere
    return str(cell.directory.relative_to(sweep_dir) if inside else cell.directory)


def _lock(sweep_dir: Path) -> None:
    """Keep other sweeps out of a directory until this one, or its process, ends. Nothing happens if this one holds it."""
    path = (sweep_dir / ".sweep.lock").resolve()
    try:
        _until_the_end.enter_context(filelock.FileLock(path, is_singleton=True).acquire(timeout=0))
    except filelock.Timeout:
        raise UserError(
            f"{sweep_dir} is in use by a sweep that goes on now and holds {path.name} there. Wait for it, or choose another "
            "hydra.sweep.dir."
        ) from None


def _finish(sweep_dir: Path) -> None:
    if not (sweep_dir / "plan.json").is_file() and not any(sweep_dir.glob("*/status.json")):
        return  # there were no cells, such as with plan=true under another sweeper
    failed: list[str] = []
    GlobalHydra.instance().clear()  # it has done its work, and the report composes settings anew
    try:
        failed = failures(sweep_dir)
        from bitsure.sweep.report.building import finish_sweep
        from bitsure.sweep.report.sweep_terminal import show_sweep

        with working("the sweep's report"):
            report = finish_sweep(sweep_dir)
        show_sweep(report)
    except UserError as error:
        failed.append(f"- the sweep's report could not be made: {error}")
    except Exception as error:  # noqa: BLE001 - Hydra would print it and exit with 0
        traceback.print_exc()
        failed.append(f"- the sweep's report could not be made: {error}")
    if failed:
        sys.exit("\n".join(["", f"{len(failed)} failed or stopped; the same command tries again what did:", *failed]))


def failures(sweep_dir: Path) -> list[str]:
    """Return a line for each cell of a sweep that is not done, or whose strict verdict is not good enough.

    Without plan.json, as another sweeper than Hydra's own leaves it, the cells are the folders that have a status.
    """
    if plan := results.read_if_there(sweep_dir / "plan.json", SweepPlan):
        directories = [cell.directory for cell in plan.cells]
    else:
        directories = [path.parent.name for path in sorted(sweep_dir.glob("*/status.json"))]
    return [f"- {directory}: {why}" for directory in directories if (why := _why_failed(sweep_dir / directory))]


def _why_failed(run_dir: Path) -> str | None:
    """Return why a cell counts as failed; None if it does not."""
    try:
        status = results.read_if_there(run_dir / "status.json", Status)
        verdict = results.read_if_there(run_dir / "verdict.json", Verdict)  # full precision has none
    except UserError as error:
        return f"damaged: {error}"
    if status is None:
        return "not started: it has no status.json"
    if status.state == "skipped":
        return None
    if status.state != "done":
        message = status.error or "its process ended without an error message"
        return f"{state_in_words(status.state, status.error)}: {message.splitlines()[0]}"
    if verdict and verdict.strict and verdict.verdict != "non-inferior":
        return f"verdict=strict: {verdict.verdict}"
    return None


def is_elsewhere(launcher: DictConfig) -> bool:
    """Return whether cells run on other machines than this one: Slurm's nodes, or those of a Ray cluster."""
    target = str(launcher._target_)
    return target.endswith(".SlurmLauncher") or (target.endswith(".RayLauncher") and launcher.ray.init.address is not None)


def _check_installed(target: str) -> None:
    """Raise UserError with the command that installs a launcher, if it is not installed."""
    for package, extra in LAUNCHERS.items():
        if f".{package}." in target and not is_installed(package):
            raise UserError(f"hydra/launcher: {package} is not installed: {how_to_install(extra)}")


def is_installed(launcher: str) -> bool:
    """Return whether a launcher's Hydra plugin is installed."""
    try:
        return find_spec(f"hydra_plugins.{launcher}") is not None
    except ModuleNotFoundError:  # there is no plugin at all
        return False
