"""The command `bitsure`: what is done with results after a run, and what is fetched before one. Runs start with main.py."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bitsure.base import terminal
from bitsure.base.errors import UserError, did_you_mean
from bitsure.base.files import check_file_names, disk_errors
from bitsure.config.extras import run_extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a user can mend ends with a sentence and exit code 1.

    Args:
        arguments: The words after `bitsure`; None for those of the process.
    """
    terminal.protect()
    given = _parser().parse_args(arguments)
    try:
        check_file_names([os.getcwd(), *map(str, vars(given).values())])
        with disk_errors(Path()), run_extra(f"bitsure {given.command}"):
            given.run(given)
    except UserError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


class _Parser(argparse.ArgumentParser):
    """Names the command closest to one that does not exist."""

    def error(self, message: str) -> NoReturn:
        """Exit with a message, and with the closest choice where there is one."""
        if match := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += "." + did_you_mean(match[1], re.findall(r"[\w-]+", match[2]))
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bitsure", description="What does quantization do to a language model's confidence?")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    report = commands.add_parser("report", help="make the report of a run, of harness logs or of a sweep again, from records")
    report.add_argument("directory", type=Path, help="a run or sweep directory, or one with the harness's samples_*.jsonl")
    report.add_argument("--baseline", type=Path, help="the full-precision run; a run directory of ours has its own")
    report.add_argument("--metric", help="an option of conf/metric, such as paper_compat; default: the run's own settings")
    report.add_argument("--config-dir", type=Path, help="a folder with options of your own, such as metric/mine.yaml")
    report.add_argument("--out", type=Path, help="where to write; default: the directory itself")
    report.add_argument("--track", action="store_true", help="of a sweep: log its summary run to W&B, as its cells were")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="compare two runs on the same questions, in the terminal; nothing is written")
    compare.add_argument("baseline", type=Path, help="run directory, or harness logs, of the model to compare with")
    compare.add_argument("directory", type=Path, help="run directory, or harness logs, of the other model")
    compare.set_defaults(run=_compare)

    contrast = commands.add_parser("contrast", help="does quantization hurt one model more than another?")
    contrast.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories of quantized models")
    contrast.set_defaults(run=_contrast)

    choose = commands.add_parser("choose", help="which is the smallest quantizer of a sweep that may be shipped?")
    choose.add_argument("sweep", type=Path, metavar="SWEEP_DIR", help="the directory of a sweep over quantizers")
    choose.add_argument(
        "--max-bytes", type=_size, metavar="SIZE", help="the largest size on disk that may be chosen: 500kB, 1.5GB"
    )
    choose.add_argument("--margin", type=float, help="the largest loss of accuracy to ship; default: verdict.accuracy_margin")
    choose.set_defaults(run=_choose)

    compress = commands.add_parser("compress", help="is the cheapest model to load also the least sure?")
    compress.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories of quantized models")
    compress.add_argument("--task", help="whose numbers to show; default: a run's only task, or the mean over its tasks")
    compress.set_defaults(run=_compress)

    export = commands.add_parser("export", help="write a run's quantized model as transformers, vLLM or llama.cpp load it")
    export.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the directory of a quantized model's run")
    export.add_argument("out", type=Path, metavar="DIR", help="a new or empty directory: weights, tokenizer and model card")
    formats = ("gptq", "compressed-tensors", "gguf")
    export.add_argument("--format", choices=formats, help="default: the first that the weights fit into")
    export.set_defaults(run=_export)

    prefetch = commands.add_parser("prefetch", help="fill a mirror with what runs with these settings read from the hub")
    prefetch.add_argument("overrides", nargs="+", metavar="key=value", help="settings as for main.py; paths.hub_mirror=DIR")
    prefetch.set_defaults(run=_prefetch)

    names = commands.add_parser("list", help="print the models, quantizers or tasks that a command may name")
    names.add_argument("kind", nargs="?", choices=("models", "quants", "tasks"), help="default: what can be listed")
    names.add_argument("word", nargs="?", help="what their names contain; of tasks, those of lm-evaluation-harness too")
    names.set_defaults(run=_list)

    dashboard = commands.add_parser("dashboard", help="make a W&B workspace and a report of a tracked sweep")
    dashboard.add_argument("sweep", type=Path, metavar="SWEEP_DIR", help="the directory of a sweep whose runs W&B has")
    dashboard.set_defaults(run=_dashboard)

    wandb_sweep = commands.add_parser("wandb-sweep", help="print a committed sweep as the file that `wandb sweep` takes")
    wandb_sweep.add_argument("file", type=Path, help="such as sweeps/scales.yaml")
    wandb_sweep.set_defaults(run=_wandb_sweep)
    return parser


def _report(given: argparse.Namespace) -> None:
    from bitsure.records.directory_kinds import is_sweep, wrong_directory
    from bitsure.report.command import report_run

    if is_sweep(given.directory):
        _report_sweep(given)
    elif given.track:
        raise wrong_directory(given.directory, "--track logs a sweep's summary run")
    else:
        report_run(given.directory, given.baseline, given.metric, given.out, given.config_dir)


def _report_sweep(given: argparse.Namespace) -> None:
    from bitsure.base.progress import working
    from bitsure.sweep.report.building import build_sweep_report, finish_sweep
    from bitsure.sweep.report.cell_results import read_cells
    from bitsure.sweep.report.sweep_terminal import show_sweep

    names = ("baseline", "metric", "config_dir", "out")
    options = [f"--{name.replace('_', '-')}" for name in names if getattr(given, name) is not None]
    if options:
        raise UserError(f"{given.directory} is a sweep's directory: {', '.join(options)} works on one of its runs.")
    modes = {cell.config.get("tracking", {}).get("mode", "disabled") for cell in read_cells(given.directory)}
    if given.track and modes <= {"disabled"}:
        raise UserError(f"{given.directory}: no cell of it was tracked (tracking.mode=disabled), so --track logs nothing.")
    with working("report"):
        report = finish_sweep(given.directory) if given.track else build_sweep_report(given.directory)
    show_sweep(report)


def _compare(given: argparse.Namespace) -> None:
    from bitsure.report.command import compare_runs

    compare_runs(given.baseline, given.directory)


def _contrast(given: argparse.Namespace) -> None:
    from bitsure.report.model_contrasts import report_models

    report_models(given.runs)


def _choose(given: argparse.Namespace) -> None:
    from bitsure.sweep.report.choose_command import choose_quantizers

    choose_quantizers(given.sweep, given.max_bytes, given.margin)


def _size(text: str) -> int:
    """Return the bytes of a size such as `500000`, `500kB` or `1.5GB`."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kMGT]?)B)?", text.strip())
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write bytes, or a number with kB, MB or GB, such as 500kB")
    thousands: int = 1000 ** " kMGT".index(parts[2] or " ")
    return round(float(parts[1]) * thousands)


def _compress(given: argparse.Namespace) -> None:
    from bitsure.report.compress_command import report_compressibility

    report_compressibility(given.runs, given.task)


def _export(given: argparse.Namespace) -> None:
    from bitsure.run.exporting import export_run

    export_run(given.run_dir, given.out, given.format)


def _prefetch(given: argparse.Namespace) -> None:
    from bitsure.run.prefetch import prefetch_main

    prefetch_main(given.overrides)


def _list(given: argparse.Namespace) -> None:
    from bitsure.tasks.list_command import list_names

    list_names(given.kind, given.word)


def _dashboard(given: argparse.Namespace) -> None:
    from bitsure.sweep.dashboard.making import make_dashboard

    dashboard = make_dashboard(given.sweep)
    print(f"workspace {dashboard.workspace}\nreport    {dashboard.report}")


def _wandb_sweep(given: argparse.Namespace) -> None:
    from bitsure.sweep.launch.wandb_sweep import wandb_sweep

    print(wandb_sweep(given.file), end="")


if __name__ == "__main__":
    main()
