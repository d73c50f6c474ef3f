"""Open and close runs of Weights & Biases."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

from bitsure.base import terminal
from bitsure.base.errors import DiskError, UserError
from bitsure.base.files import hash_json, write_text
from bitsure.base.progress import working
from bitsure.config.schema import TrackingSettings
from bitsure.report.tracked_run import RUN_FILE
from bitsure.run.wandb_names import TAG_BYTES, fit

WAYS_OUT = (
    "Ways out: `wandb login` (or the environment variable WANDB_API_KEY); or tracking.mode=offline, and `wandb sync` later; or "
    "tracking.mode=disabled."
)
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

    @property
    def offline(self) -> bool:
        """Whether it is kept on this machine."""

    def define_metric(self, name: str, *, hidden: bool | None = None) -> Any:
        """Say whether a key gets a panel by itself."""

    def log(self, data: dict[str, Any]) -> None:
        """Log values at one step."""

    def log_artifact(self, artifact_or_path: Any) -> Any:
        """Log files as an output."""

    def use_artifact(self, artifact_or_name: Any) -> Any:
        """Name files as an input; online only."""

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
    notes: str | None = None


def check_login(tracking: TrackingSettings) -> None:
    """Raise UserError if runs are to be sent and there is no login; nothing has been computed yet then."""
    if tracking.mode != "online":
        return
    if not is_logged_in():
        raise UserError(f"tracking.mode=online: not logged in to Weights & Biases. {WAYS_OUT}")


def is_logged_in() -> bool:
    """Return whether there is a key of W&B in the environment, .netrc or wandb's settings; it is never shown or kept."""
    import wandb

    return bool(wandb.api.api_key)


def start_service(tracking: TrackingSettings) -> None:
    """Start W&B's service in the background, which takes a quarter of a second; `open_wandb_run` reports its errors."""
    if tracking.mode == "disabled":
        return

    def start() -> None:
        wandb = _wandb()
        with suppress(Exception):  # the run starts the service again, and says what is wrong
            wandb.setup()

    threading.Thread(target=start, daemon=True).start()


def _wandb() -> ModuleType:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


class WandbSession:
    """A W&B run that may break off: a run's results do not depend on it."""

    def __init__(self, directory: Path, log_file: Path) -> None:
        self.run: WandbRun | None = None  # None where nothing is logged (any more)
        self._directory = directory
        self._log_file = log_file
        self._place: str | None = None
        self._error: str | None = None

    @property
    def broken_off(self) -> bool:
        """Whether W&B failed, so that its part of the results is missing."""
        return self._error is not None

    @property
    def where(self) -> str | None:
        """The run's address, the command that sends it, or what is missing and how to send it; None where nothing is logged."""
        if self._error is None:
            return self._place
        kept = f"What was written until then: {self._place}. " if self._place else ""
        return (
            f"missing: {self._error}. {kept}To send everything, run the same command with another hydra.run.dir (of a sweep: "
            f"`bitsure report {shlex.quote(str(self._directory))} --track`): finished work is in the store. "
            f"Details: {self._log_file}"
        )

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an error of W&B as part of `where` instead of raising it; nothing more is logged then."""
        try:
            with terminal.output_to(self._log_file):
                yield
        except UserError as error:
            if not isinstance(error, DiskError):
                raise
            self._break_off(error)
        except Exception as error:  # noqa: BLE001  W&B raises many kinds where its process is gone; results stand all the same
            self._break_off(error)

    def opened(self, run: WandbRun) -> None:
        """Log into a run from now on."""
        self.run = run
        self._place = run.url or f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
        if run.url:
            _remember_address(self._directory / RUN_FILE, run.url)

    def finish(self, exit_code: int) -> None:
        """End the W&B run, if there still is one."""
        if self.run is not None:
            with working("finishing the W&B run"), self.guarded():
                self.run.finish(exit_code=exit_code)

    def _break_off(self, error: Exception) -> None:
        self._error = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        self.run = None
        with suppress(Exception), terminal.output_to(self._log_file):
            print("".join(traceback.format_exception(error)))
            _wandb().teardown()  # otherwise W&B fails once more, and visibly, when the process ends


@contextmanager
def open_wandb_run(
    tracking: TrackingSettings, description: RunDescription, directory: Path, log_file: Path
) -> Iterator[WandbSession]:
    """Open a W&B run around the block and finish it in any case, with exit code 1 if the block raises.

    Args:
        tracking: Whether and where to log.
        description: The run's name and settings, which are cut to W&B's limits. The same description in the same directory is
            the same W&B run.
        directory: Where W&B keeps its files.
        log_file: Where W&B's own output goes.

    Yields:
        The session; its `run` is None where tracking is disabled or W&B's files cannot be written.

    Raises:
        UserError: If W&B refuses to start the run.
    """
    session = WandbSession(directory, log_file)
    if tracking.mode != "disabled":
        with session.guarded():
            run_id = _run_id(directory, hash_json([tracking.mode, asdict(description)]))
            if tracking.mode == "offline":
                remove_attempts(directory, run_id)
            session.opened(_start(tracking, description, directory, run_id))
    try:
        yield session
    except BaseException:
        session.finish(exit_code=1)
        raise
    session.finish(exit_code=0)


def _start(tracking: TrackingSettings, description: RunDescription, directory: Path, run_id: str) -> WandbRun:
    wandb = _wandb()
    try:
        run: WandbRun = wandb.init(
            id=run_id,
            project=tracking.project,
            entity=tracking.entity,
            mode=tracking.mode,
            dir=str(directory),
            # provenance.json has the packages that matter; listing all that are installed takes longer than all else here
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, x_save_requirements=False),
            name=fit(description.name),
            group=fit(description.group),
            job_type=fit(description.job_type, TAG_BYTES),
            tags=list(dict.fromkeys(fit(tag, TAG_BYTES) for tag in description.tags)),
            config=description.config,
            notes=description.notes,
        )
    except wandb.errors.Error as error:
        new_id = f"Or remove {directory / RUN_FILE}, which holds the run's id, to get a new one."
        raise UserError(f"Weights & Biases cannot start a run: {error}\n{WAYS_OUT} {new_id}") from error
    return run


def remove_attempts(directory: Path, run_id: str | None = None) -> None:
    """Remove offline runs that hold nothing, and those with an id that is run again.

    `wandb sync` of several directories sends none of them if one is empty.
    """
    for file in directory.glob("wandb/offline-run-*/run-*.wandb"):
        if file.stem == f"run-{run_id}" or file.stat().st_size <= EMPTY_FILE_BYTES:
            shutil.rmtree(file.parent)


def _remember_address(file: Path, address: str) -> None:
    """Keep a run's address beside its id, for pages that are made later."""
    remembered = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    write_text(file, json.dumps(remembered | {"url": address}))


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
    if (known := remembered_id(directory, content)) is not None:
        return known
    file = directory / RUN_FILE
    file.parent.mkdir(exist_ok=True)
    new_id = uuid4().hex[:12]
    write_text(file, json.dumps({"id": new_id, "of": content}))
    return new_id


def remembered_id(directory: Path, content: str | None = None) -> str | None:
    """Return the id of a directory's W&B run; None where it has none, or none of that content.

    Args:
        directory: The run's directory.
        content: A hash of what is run; None for any.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
        if content in (None, remembered["of"]) and re.fullmatch("[0-9a-f]{12}", remembered["id"]):
            return str(remembered["id"])
    return None
