"""Print the names that a command may give: models, quantizers, tasks."""

from __future__ import annotations

import re

from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import DERIVATIONS
from bitsure.config.option_groups import Option, families, options, own_bits
from bitsure.tasks.harness_names import names_of_the_harness

KINDS = {"models": "model", "quants": "quant", "tasks": "task"}


def list_names(kind: str | None, word: str | None) -> None:
    """Print the options of a group of settings, with what each is; of tasks, also the harness's own names with a word.

    Args:
        kind: One of KINDS; None prints what can be listed.
        word: What the names that are printed contain; None for all.

    Raises:
        UserError: If no name contains the word.
    """
    if kind is None:
        _show_kinds()
        return
    rows = [row for row in _rows(kind) if word is None or word.lower() in row[0].lower()]
    out = terminal.console()
    if rows:
        table = Table(f"{KINDS[kind]}=", "", box=None, padding=(0, 1, 0, 0), show_edge=False)
        for row in rows:
            table.add_row(*map(escape, row))
        out.print(table)
    names = _harness_tasks(word) if kind == "tasks" else []
    if word is not None and not rows and not names:
        raise UserError(f"No name in {kind} contains {word!r}. `bitsure list {kind}` prints all.")
    if names:
        out.print(f"\nof lm-evaluation-harness, 'task.names=[…]':\n{' '.join(names)}", markup=False, soft_wrap=False)
    elif kind == "tasks":
        out.print(
            "\nAny other task, group or tag of lm-evaluation-harness: 'task.names=[…]'. `bitsure list tasks WORD` prints those "
            "whose name contains a word, docs/tasks.md what is scored of each. Behind a name of a task with choices may stand "
            f"{', '.join(f'@{derivation}' for derivation in DERIVATIONS)}.",
            markup=False,
        )


def _show_kinds() -> None:
    """Print what can be listed."""
    out = terminal.console()
    for kind, group in KINDS.items():
        out.print(f"bitsure list {kind:6}  {len(_rows(kind))} options of {group}=", markup=False)
    out.print("A word behind it lists the names that contain it: bitsure list tasks arc", markup=False)


def _rows(kind: str) -> list[tuple[str, str]]:
    if kind == "tasks":
        return [(task.name, _task_note(task)) for task in options("task")]
    if kind == "models":
        return [(model.name, _model_note(model)) for family in families("model") for model in family.options]
    known = {option.name: option for option in options("quant")}
    return [
        (quant.name, family.comment if quant.name == family.name else _quant_note(own_bits(quant, known), family.name))
        for family in families("quant")
        for quant in family.options
    ]


def _quant_note(bits: str, family: str) -> str:
    """Return what a quantizer's option is: the bits that it rounds to, and what it is like otherwise."""
    return f"{bits}, otherwise as {family}" if bits else f"as {family}"


def _model_note(model: Option) -> str:
    """Return what a model option is: its comment, else its repository, or that the project holds it."""
    return model.comment or str(model.model.get("repo") or "embedded")


def _task_note(task: Option) -> str:
    """Return what a task option is: its comment, and its tasks unless they are called as it is."""
    names = task.content.get("names") or []
    listed = ", ".join(names) if names != [task.name] else ""
    return f"{task.comment} ({listed})" if task.comment and listed else task.comment or listed


def _harness_tasks(word: str | None) -> list[str]:
    """Return the harness's names that contain a word, first those where it begins; none without, as there are 15,000."""
    if word is None:
        return []
    start = re.compile(rf"(?<![a-z0-9]){re.escape(word.lower())}")
    names = [name for name in names_of_the_harness() if word.lower() in name.lower()]
    return sorted(names, key=lambda name: (not name.lower().startswith(word.lower()), not start.search(name.lower()), name))
