"""Names of tasks whose questions are made of another task's: its name, @, and how they are made, such as `arc_easy@typos`."""

from __future__ import annotations

from collections.abc import Collection

from bitsure.base.errors import UserError, did_you_mean

SELF = "self"  # is a proposed answer right?
TWINS = ("typos", "order", "distractor")  # the same question in other words
DERIVATIONS = (SELF, *TWINS)


def original_task(name: str) -> str:
    """Return the task, group or tag that a name's questions are made of; the name itself if it is no derived one."""
    return name.partition("@")[0]


def derivation_of(name: str) -> str | None:
    """Return how the questions of a name are made, one of DERIVATIONS; None if they are the task's own."""
    return name.partition("@")[2] or None


def is_twin(name: str) -> bool:
    """Return whether a task asks another task's questions in other words."""
    return derivation_of(name) in TWINS


def is_repetition(name: str, tasks: Collection[str]) -> bool:
    """Return whether a task is the twin of another one of these: no evidence of its own in a mean over them."""
    return is_twin(name) and original_task(name) in tasks


def check_derivations(names: list[str]) -> None:
    """Raise UserError for a name with an @ before something else than one of DERIVATIONS."""
    for name in names:
        derivation = name.partition("@")[2]
        if "@" in name and derivation not in DERIVATIONS:
            raise UserError(
                f"task.names: {name}: behind the @ stands one of {', '.join(DERIVATIONS)}, not {derivation!r}."
                f"{did_you_mean(derivation, DERIVATIONS)} docs/tasks.md says what each does."
            )
