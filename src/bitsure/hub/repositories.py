"""Repositories of the hub: which model is wanted, which files were found, and which commit data came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from bitsure.config.model import REVISION

FILES = "files"  # in the place of a repository: files of this machine that no repository holds


def _accept(config: Path) -> None:
    """Accept any config.json."""


@dataclass(frozen=True)
class WantedModel:
    """A model repository to find or download."""

    repo: str
    revision: str = REVISION
    gated: bool = False
    """Whether the repository is known to require granted access; for error messages."""
    with_code: bool = False
    """Whether its Python files are wanted too."""
    with_weights: bool = True
    """Whether its weights are wanted; without them config and tokenizer are enough."""
    check_config: Callable[[Path], None] = _accept
    """Called with config.json before anything large is downloaded; raises UserError to stop."""

    def __str__(self) -> str:
        named = f"model {self.repo} at revision {self.revision}"
        return named if self.with_weights else f"{named} (tokenizer and config.json, no weights)"

    @property
    def place(self) -> str:
        """Where a mirror has it."""
        return f"models/{self.repo}"


@dataclass(frozen=True)
class LocalFiles:
    """A repository's files on this machine."""

    path: Path
    commit: str | None
    """The commit that they are of; None if unknown."""


class Origin(TypedDict):
    """Where files of a data set come from."""

    commit: str | None
    """The commit; None if unknown."""
    unknown: NotRequired[str]
    """Why the commit is unknown."""
    ref: NotRequired[str]
    """The ref that the commit is on, if that is no branch."""
    configuration: NotRequired[str]
    """The hub's name of the configuration, if it differs from the name that was asked for."""
    sha256: NotRequired[Mapping[str, str | None]]
    """File → SHA-256 of its content, for files of a mirror; None for a file that does not exist."""


def local_origin(hashes: Mapping[Path, str | None]) -> Origin:
    """Return the origin of files that no repository holds: each by its path, and by the path that links in it lead to."""
    named = {str(path): sha256 for file, sha256 in hashes.items() for path in (file.absolute(), file.resolve())}
    return {"commit": None, "unknown": "files of this machine", "sha256": named}
