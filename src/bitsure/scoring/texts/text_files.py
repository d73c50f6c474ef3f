"""The file of a text that is scored: finding it, identifying it, reading its documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitsure.base.errors import UserError
from bitsure.base.store import Store, hash_each
from bitsure.config.text import TextSettings
from bitsure.hub.repositories import Origin, local_origin
from bitsure.hub.repository_files import dataset_file, file_origin
from bitsure.quantize.calibration.documents import PLAIN, READERS, read_parts
from bitsure.scoring.texts.documents_of_text import TextDocuments


@dataclass(frozen=True)
class ScoredText:
    """A text on this machine, and how it is scored."""

    settings: TextSettings
    file: Path
    sha256: str
    """Of the file."""
    origin: Origin
    """Where the file came from, for provenance.json."""

    @property
    def task(self) -> str:
        """What metrics.json and comparison.json call the text: `text/<name>/<protocol>`."""
        return f"text/{self.settings.name}/{self.settings.protocol.rpartition('.')[2]}"

    @property
    def key(self) -> dict[str, object]:
        """What identifies the text, and how it is scored, in the key of its scores."""
        names = ("name", "field", "document_start", "separator", "protocol", "window", "stride", "limit", "add_bos")
        ending = next(ending for ending in READERS if self.file.name.endswith(ending))  # which says how the file is read
        return {"sha256": self.sha256, "ending": ending, **{name: getattr(self.settings, name) for name in names}}

    def read(self) -> TextDocuments:
        """Return the documents.

        Raises:
            UserError: If the file is not what its name says, or holds no text.
        """
        settings, place = self.settings, f"text={self.settings.name}: {self.file}"
        parts = read_parts(self.file, settings.field)
        if self.file.name.endswith(PLAIN) and settings.document_start is not None:
            parts = _lines(parts[0])
        if not any(part.strip() for part in parts):
            raise UserError(f"{place} is empty: there is nothing to score.")
        if (pattern := settings.document_start) is None:
            return TextDocuments(place, parts, np.arange(len(parts)), separator=settings.separator)
        starts = np.array([bool(re.match(pattern, part)) for part in parts], dtype=np.int64)
        documents = np.maximum(np.cumsum(starts) - 1, 0)  # blank lines before the first heading are the first document's
        return TextDocuments(place, parts, documents, are_lines=True, separator=settings.separator)


def _lines(text: str) -> list[str]:
    """Return the lines of a text as the rows of a data set: with their ends, blank ones empty."""
    return [line if line.strip() else "" for line in re.findall(r"[^\n]*\n|[^\n]+", text)]


def locate_text_file(settings: TextSettings, hub_mirror: str | None, store: Store | None = None) -> ScoredText | None:
    """Find a text's file before anything heavy is loaded; None where no text is scored.

    Args:
        settings: Which text.
        hub_mirror: The directory of a mirror of the hub.
        store: Knows the hashes of files that have not changed.

    Raises:
        UserError: If the file is not available, or is of no kind that can be read.
    """
    if not settings.is_scored:
        return None
    if settings.path is not None:
        file = Path(settings.path)
        if not file.is_file():
            raise UserError(f"text.path={settings.path}: no such file.")
    else:
        assert settings.repo is not None and settings.file is not None, "TextSettings checks that a text has a place"
        try:
            file = dataset_file(settings.repo, settings.file, hub_mirror, settings.revision)
        except UserError as error:
            raise UserError(f"{error}\nOr another text: text=local text.path=FILE.") from error
    if not file.name.endswith(tuple(READERS)):
        raise UserError(f"text.path={file}: the name has to end in {', '.join(READERS)}.")
    (sha256,) = hash_each([file], store)
    origin = local_origin({file: sha256})
    if settings.path is None and settings.repo is not None and settings.file is not None:
        origin = file_origin(settings.repo, settings.file, file, sha256, hub_mirror)
    return ScoredText(settings, file, sha256, origin)
