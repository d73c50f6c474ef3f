"""Open and close runs of Weights & Biases."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import hash_json, write_text
from bitsure.config.schema import TrackingSettings

WAYS_OUT = (
    "Ways out: `wandb login` (or the environment variable WANDB_API_KEY); or tracking.mode=offline, and `wandb sync` later."
)
RUN_FILE = "wandb/run.json"  # in the run's directory, beside W&B's own files
EMPTY_FILE_BYTES = 7  # the header of W&B's file of an offline run


class WandbRun(Protocol):
    """The part of a W&B run that is used here."""

    summary: Any
    config: Any

    @property
    def id(self) -> str:
        """Its id within the project."""

    @property
    def url(self) -> str | None:
        """Its address; None offline."""

    @property
    def dir(self) -> str:
        """The directory of its files."""

    def log(self, data: dict[str, Any]) -> None:
        """Log values at one step."""

    def log_artifact(self, artifact_or_path: Any) -> Any:
        """Log files."""

    def finish(self, exit_code: int | None = None) -> None:
        """End the run."""


@dataclass(frozen=True)
class RunDescription:
    """What a new W&B run is called, and its settings."""

    name: str
    group: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]


def check_login(tracking: TrackingSettings) -> None:
    """Raise UserError if runs are to be sent and there is no login; nothing has been computed yet then."""
    if tracking.mode != "online":
        return
    import wandb

    if not wandb.api.api_key:  # from the environment, .netrc or wandb's settings; it is never shown or kept
        raise UserError(f"tracking.mode=online: not logged in to Weights & Biases. {WAYS_OUT}")


def start_service(tracking: TrackingSettings) -> None:
    """Start W&B's service in the background, which takes a quarter of a second; `open_wandb_run` reports its errors."""
    if tracking.mode == "disabled":
        return

    def start() -> None:
        with suppress(Exception):
            _wandb().setup()

    threading.Thread(target=start, daemon=True).start()


def _wandb() -> ModuleType:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def where_to_look(run: WandbRun) -> str:
    """Return a W&B run's address, or the command that sends it if it is offline."""
    return run.url or f"wandb sync {Path(run.dir).parent}"


@contextmanager
def open_wandb_run(
    tracking: TrackingSettings, description: RunDescription, directory: Path, log_file: Path
) -> Iterator[WandbRun | None]:
    """Open a W&B run around the block and finish it in any case, with exit code 1 if the block raises.

    Args:
        tracking: Whether and where to log.
        description: The run's name and settings. The same description in the same directory is the same W&B run.
        directory: Where W&B keeps its files.
        log_file: Where W&B's own output goes.

    Yields:
        The run; None where tracking is disabled.

    Raises:
        UserError: If W&B cannot start the run.
    """
    if tracking.mode == "disabled":
        yield None
        return
    wandb, run_id = _wandb(), _run_id(directory, hash_json([tracking.mode, asdict(description)]))
    if tracking.mode == "offline":
        remove_attempts(directory, run_id)
    try:
        with terminal.output_to(log_file):
            run = wandb.init(
                id=run_id,
                project=tracking.project,
                entity=tracking.entity,
                mode=tracking.mode,
                dir=str(directory),
                # provenance.json has the packages that matter; listing all that are installed takes longer than all else here
                settings=wandb.Settings(console="off", disable_git=True, disable_code=True, x_save_requirements=False),
                **asdict(description),
            )
    except wandb.errors.Error as error:
        new_id = f"Or remove {directory / RUN_FILE}, which holds the run's id, to get a new one."
        raise UserError(f"Weights & Biases cannot start a run: {error}\n{WAYS_OUT} {new_id}") from error
    try:
        yield run
    except BaseException:
        with terminal.output_to(log_file):
            run.finish(exit_code=1)
        raise
    with terminal.output_to(log_file):
        run.finish()


def remove_attempts(directory: Path, run_id: str | None = None) -> None:
    """Remove offline runs that hold nothing, and those with an id that is run again.

    `wandb sync` of several directories sends none of them if one is empty.
    """
    for file in directory.glob("wandb/offline-run-*/run-*.wandb"):
        if file.stem == f"run-{run_id}" or file.stat().st_size <= EMPTY_FILE_BYTES:
            shutil.rmtree(file.parent)


def _run_id(directory: Path, content: str) -> str:
    """Return the id of a directory's W&B run: a cell that is resumed, or a sweep that is reported again, is the same run.

    Args:
        directory: The run's directory, which remembers the id.
        content: A hash of what is run; something else in the same directory gets another id.

    Returns:
        The remembered id or a new one; that of the environment variable WANDB_RUN_ID if one of W&B's agents set it.
    """
    if agents_id := os.environ.get("WANDB_RUN_ID"):
        return agents_id
    file = directory / RUN_FILE
    with suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(file.read_text())
        if remembered["of"] == content and re.fullmatch("[0-9a-f]{12}", remembered["id"]):
            return str(remembered["id"])
    file.parent.mkdir(exist_ok=True)
    new_id = uuid4().hex[:12]
    write_text(file, json.dumps({"id": new_id, "of": content}))
    return new_id
