"""Answer from a sweep: which is the smallest quantizer of each model that may be shipped?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.comparison.choosing import CandidateVerdict, QuantizerChoice, choose
from bitsure.comparison.verdict_words import question_count
from bitsure.config.report_settings import read_report_settings
from bitsure.metrics.estimation import FEWEST
from bitsure.results.verdict import INFERIOR, UNDECIDED
from bitsure.sweep.report.candidates import Candidate, ModelCandidates, read_candidates
from bitsure.sweep.report.cell_results import read_cells

COLUMNS = ("quantizer", "MB", "bits", "loss of accuracy", "verdict", "more questions if lossless", "at this loss")
WIDTH = 110  # characters of a table that is not printed to a terminal


def choose_quantizers(sweep_dir: Path, max_bytes: int | None = None, margin: float | None = None) -> None:
    """Print each model's smallest quantizer whose loss of accuracy is surely within the margin, and all others.

    Args:
        sweep_dir: The sweep's directory; cells may be missing, running or failed.
        max_bytes: The largest size on disk that may be chosen; None for any.
        margin: The largest loss of accuracy that is small enough to ship; None for `verdict.accuracy_margin` of the sweep.

    Raises:
        UserError: If the directory is not a sweep's, it has no quantized model, or an option is not above 0.
    """
    if max_bytes is not None and max_bytes < 1:
        raise UserError(f"--max-bytes {max_bytes}: a whole number above 0.")
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a loss of accuracy between 0 and 1, such as 0.01.")
    cells = read_cells(sweep_dir)
    done = next((cell for cell in cells if cell.done), None)
    metric, verdict = read_report_settings(done.directory / "config.yaml" if done else None)
    margin = verdict.accuracy_margin if margin is None else margin
    models = read_candidates(cells, max_bytes)
    if not models:
        raise UserError(f"{sweep_dir} holds no quantized model to choose.")
    out = terminal.console()
    if not out.is_terminal:
        out.width = max(out.width, WIDTH)
    for model in models:
        if not model.tasks:
            _show_nothing(out, model)
            continue
        sizes = [candidate.size for candidate in model.candidates]
        choice = choose(list(model.tasks.values()), sizes, margin, metric.confidence_level, metric.seed)
        out.print(f"\n{model.label}: {_answer(model, choice, margin)}", markup=False, soft_wrap=True)
        out.print(_table(model, choice))
        for note in _notes(model, metric.confidence_level):
            out.print(note, markup=False, soft_wrap=True)


def _show_nothing(out: Console, model: ModelCandidates) -> None:
    reason = "full precision is not above guessing on any task" if model.candidates else "no candidate can be judged"
    out.print(f"\n{model.label}: nothing to choose, because {reason}.", markup=False, soft_wrap=True)
    for note in _left_out(model):
        out.print(note, markup=False, soft_wrap=True)


def _answer(model: ModelCandidates, choice: QuantizerChoice, margin: float) -> str:
    candidates = model.candidates
    if choice.chosen is None:
        answer = f"no choice yet. No candidate's loss of accuracy is surely below {margin:g}."
    else:
        chosen = candidates[choice.chosen]
        answer = (
            f"choose {chosen.label}, of {len(candidates)} the smallest whose loss of accuracy is surely below {margin:g}: "
            f"{_loss(choice.candidates[choice.chosen])}. It is in {', '.join(cell.directory.name for cell in chosen.cells)}."
        )
        runner_up = "none" if choice.runner_up is None else candidates[choice.runner_up].label
        answer += f" Runner-up: {runner_up}."
    verdicts = list(zip(candidates, choice.candidates, strict=True))
    worse = [candidate.label for candidate, result in verdicts if result.verdict == INFERIOR]
    undecided = [candidate.label for candidate, result in verdicts if result.verdict == UNDECIDED]
    answer += f" Surely worse: {', '.join(worse) or 'none'}. Undecided: {', '.join(undecided) or 'none'}."
    return answer


def _table(model: ModelCandidates, choice: QuantizerChoice) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for i, name in enumerate(COLUMNS):
        number = 0 < i < 4 or i > 4
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for candidate, result in zip(model.candidates, choice.candidates, strict=True):
        table.add_row(*map(escape, _row(candidate, result)))
    return table


def _row(candidate: Candidate, result: CandidateVerdict) -> tuple[str, ...]:
    size, bits, needed = candidate.columns.size_bytes, candidate.columns.bits_per_weight, result.needed
    more = ("", "")
    if needed is not None:
        ends = f" [{question_count(needed.low)}, {question_count(needed.high)}]"
        more = (f"{question_count(needed.if_lossless)}{ends}", question_count(needed.at_loss_seen))
    return (
        candidate.label,
        "–" if size is None else f"{size / 1e6:.3g}",
        "–" if bits is None else f"{bits:.2f}",
        _loss(result),
        result.verdict,
        *more,
    )


def _notes(model: ModelCandidates, level: float) -> Iterator[str]:
    questions = sum(len(task.losses) for task in model.tasks.values())
    names = ", ".join(model.tasks)
    yield f"Mean over {names}: {questions:,} questions. Intervals hold for all candidates at once, at {level:.0%}."
    few = [name for name, task in model.tasks.items() if task.units < FEWEST]
    if few:
        yield f"Nothing is decided: {', '.join(few)} has fewer than {FEWEST} questions, or clusters of them."
    yield from _left_out(model)


def _left_out(model: ModelCandidates) -> Iterator[str]:
    if model.guessing:
        yield f"Not in the mean, because full precision is not above guessing there: {', '.join(model.guessing)}."
    for name, reason in model.not_judged.items():
        yield f"Not judged: {name} ({reason})."


def _loss(result: CandidateVerdict) -> str:
    if math.isnan(result.ci_low):
        return f"{result.loss + 0.0:+.4f}"
    return f"{result.loss + 0.0:+.4f} [{result.ci_low:+.4f}, {result.ci_high:+.4f}]"
