"""python -m bitsure.compress RUN_DIR … [--task NAME]: is the cheapest model to load also the least sure?

Prints a row a quantized run in Markdown, the cheapest of each model first, and for each model what is cheapest and what is
least sure. It reads what the runs left; nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.metrics.names import ECE, MACRO

SURE = {"confidence": "confidence", "true_label_prob": "true-label prob.", "accuracy": "accuracy", ECE: "calibration error"}
COLUMNS = ("model", "quantizer", "bits", "after coding", "entropy", "load time", *SURE.values())


@dataclass(frozen=True)
class Run:
    """What one run says of size and sureness."""

    model: str
    quantizer: str
    proof: dict  # quantization.json
    numbers: dict[str, dict]  # of one task, by metric
    asked: dict[str, int]  # how many questions of each task

    @property
    def coded(self) -> float:
        return self.proof["bits_per_weight_coded"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bitsure.compress", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--task", help="whose numbers to show; if not given, a run's only one, or the mean over its tasks")
    given = parser.parse_args(arguments)
    try:
        show([read(path, given.task) for path in given.runs])
    except UserError as error:
        sys.exit(f"Error: {error}")


def read(directory: Path, task: str | None = None) -> Run:
    """Raises UserError where there is no finished run, no codes were measured, or the task was not asked."""
    try:
        proof, metrics, made_by = (
            json.loads((directory / f"{name}.json").read_text()) for name in ("quantization", "metrics", "provenance")
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} is no finished run of a quantized model: it has no {Path(error.filename).name}."
        ) from error
    if "bits_per_weight_coded" not in proof:
        why = "its weights have none, or compress.codes was 0"
        raise UserError(f"{directory}: no codes of {proof['quantizer']}'s weights were measured ({why}). Leave this run out.")
    task = task or (MACRO if MACRO in metrics else next(iter(metrics)))
    fit = [name for name, values in metrics.items() if SURE.keys() <= values.keys()]
    if task not in fit:
        raise UserError(
            f"{directory}: {task} has no confidence to show, or was not asked; --task may be {', '.join(fit) or 'none'}."
        )
    asked = {name: values["accuracy"]["n"] for name, values in metrics.items() if "accuracy" in values}
    return Run(made_by["model"]["name"], proof["quantizer"], proof, metrics[task], asked)


def show(runs: list[Run]) -> None:
    out = terminal.console()
    for line in lines(runs):
        out.print(line, markup=False, soft_wrap=True)


def lines(runs: list[Run]) -> list[str]:
    """The table and, for each model, the answer."""
    ordered = sorted(runs, key=lambda run: (run.model, run.coded))
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(_row, ordered)]
    answers = [answer(model, list(of_model)) for model, of_model in groupby(ordered, key=lambda run: run.model)]
    return ["| " + " | ".join(cells) + " |" for cells in rows] + ["", *filter(None, answers)]


def _row(run: Run) -> list[str]:
    sizes = [f"{run.proof[key]:.2f}" for key in ("bits_per_weight", "bits_per_weight_coded", "code_entropy")]
    load = f"{run.proof['load_seconds'] * 1000:.3g} ms"
    return [run.model, run.quantizer, *sizes, load, *(_number(run.numbers[name]) for name in SURE)]


def answer(model: str, runs: list[Run]) -> str | None:
    """Which of a model's quantizers is the cheapest to load, which the least sure, which of the right answer; None of one."""
    if len(runs) < 2:
        return None
    if any(run.asked != runs[0].asked for run in runs):
        return f"{model}: its runs were asked other questions, so that who is the least sure is not said: leave some out."
    cheapest = min(runs, key=lambda run: run.coded)
    said = f"{model}: the cheapest to load is {cheapest.quantizer}, {cheapest.coded:.2f} bits a weight after coding"
    for name, what in (("confidence", "the least sure"), ("true_label_prob", "the least sure of the right answer")):
        one = min(runs, key=lambda run: run.numbers[name]["value"])
        said += f"; {what} is {one.quantizer} ({SURE[name]} {_number(one.numbers[name])})"
    return f"{said}."


def _number(one: dict) -> str:
    if one["ci_low"] is None:
        return f"{one['value']:.3f}"
    return f"{one['value']:.3f} [{one['ci_low']:.3f}, {one['ci_high']:.3f}]"


if __name__ == "__main__":
    main()
