"""What a directory holds: a run, a sweep, logs of lm-evaluation-harness, or none of these."""

from __future__ import annotations

import shlex
from pathlib import Path

from bitsure.base.errors import UserError

RECORDS, LOGS = "records.parquet", "samples_*.jsonl"


def is_sweep(directory: Path) -> bool:
    """Return whether a directory is a sweep's and not a run's."""
    if (directory / "plan.json").is_file():
        return True
    return not (directory / "config.yaml").is_file() and any(directory.glob("*/config.yaml"))


def refuse_sweep(directory: Path) -> None:
    """Raise UserError if a directory is a sweep's, where one of a run is needed."""
    if is_sweep(directory):
        raise wrong_directory(directory, "a run's is needed")


def wrong_directory(directory: Path, needed: str) -> UserError:
    """Return the error for a directory that a command does not take: what it is, and which commands take it.

    Args:
        directory: What was given.
        needed: What the command takes, as a part of a sentence.
    """
    given = shlex.quote(str(directory))
    if not directory.is_dir():
        return UserError(f"{directory}: no such directory; {needed}.")
    if is_sweep(directory):
        first = next((file.parent.name for file in sorted(directory.glob("*/config.yaml"))), None)
        what = "a sweep's directory"
        such_as = f", such as {first}" if first else ""
        answers = (
            f"`bitsure report {given}` reports it, `bitsure choose {given}` says which of its quantizers may be shipped, and "
            f"its runs are the folders in it{such_as}"
        )
    elif (directory / RECORDS).is_file():
        what = "a run's directory"
        answers = f"`bitsure report {given}` reports it, `bitsure export {given} DIR` writes its quantized model"
    elif any(directory.glob(LOGS)):
        what, answers = "a directory of lm-evaluation-harness's logs", f"`bitsure report {given}` reports it"
    elif (directory / "config.yaml").is_file():
        what, answers = "the directory of a run without records", "the run's command again makes them"
    else:
        what = "neither a run's directory nor a sweep's"
        answers = "it holds no records.parquet, no plan.json and no samples_*.jsonl of lm-evaluation-harness"
    return UserError(f"{directory} is {what}, and {needed}: {answers}.")
