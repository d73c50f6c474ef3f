"""python -m bitsure.report DIR [--baseline DIR] [--metric NAME] [--out DIR]: make a report again, from records alone.

DIR is a run directory of ours, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples; or a
sweep's directory, finished or not, whose one option is --track.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bitsure.base.errors import UserError
from bitsure.report.command import report_run
from bitsure.sweep.report.building import build_sweep_report, finish_sweep
from bitsure.sweep.report.cell_results import is_sweep, read_cells
from bitsure.sweep.report.sweep_terminal import show_sweep


def main(arguments: list[str] | None = None) -> None:
    """Report a run or a sweep."""
    parser = argparse.ArgumentParser(prog="python -m bitsure.report", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--baseline", type=Path, help="the full-precision run; a run directory of ours has its own")
    parser.add_argument("--metric", help="an option of conf/metric, such as paper_compat; if not given, the run's own settings")
    parser.add_argument("--out", type=Path, help="where to write; DIR itself if not given")
    parser.add_argument("--track", action="store_true", help="of a sweep: log its summary run to W&B, as its cells were")
    given = parser.parse_args(arguments)
    try:
        if is_sweep(given.directory):
            _of_sweep(given)
        elif given.track:
            raise UserError(f"{given.directory} is no sweep's directory: --track logs a sweep's summary run.")
        else:
            report_run(given.directory, given.baseline, given.metric, given.out)
    except UserError as error:
        sys.exit(f"Error: {error}")


def _of_sweep(given: argparse.Namespace) -> None:
    options = [f"--{name}" for name in ("baseline", "metric", "out") if getattr(given, name) is not None]
    if options:
        raise UserError(f"{given.directory} is a sweep's directory: {', '.join(options)} works on one of its runs.")
    modes = {cell.config["tracking"]["mode"] for cell in read_cells(given.directory) if "tracking" in cell.config}
    if given.track and modes <= {"disabled"}:
        raise UserError(f"{given.directory}: no cell of it was tracked (tracking.mode=disabled), so --track logs nothing.")
    show_sweep(finish_sweep(given.directory) if given.track else build_sweep_report(given.directory))


if __name__ == "__main__":
    main()
