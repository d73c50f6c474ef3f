"""The file of a text that is scored: finding it, identifying it, reading its documents."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.base.files import hash_file
from bitsure.base.memo import Memo
from bitsure.base.store import Store, hash_each
from bitsure.config.text import TextSettings
from bitsure.hub.repositories import Origin, local_origin
from bitsure.hub.repository_files import dataset_file, file_origin
from bitsure.models.facts import context_length
from bitsure.models.locate import Source
from bitsure.quantize.calibration.documents import PLAIN, READERS, read_parts
from bitsure.results.run_files import TextOrigin
from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import WindowSettings, make_protocol
from bitsure.scoring.texts.text_source import TextSource
from bitsure.scoring.texts.tokenized_text import TokenizedText

DEFAULT_CONTEXT = 2048  # where a model does not say its own; the harness's


@dataclass(frozen=True)
class ScoredText(TextSource):
    """A text on this machine, and how it is scored."""

    settings: TextSettings
    file: Path
    sha256: str
    """Of the file."""
    file_origin: Origin
    """Where the file came from."""

    @property
    @override
    def task(self) -> str:
        return f"text/{self.settings.name}/{self.settings.protocol.rpartition('.')[2]}"

    @property
    @override
    def origin(self) -> Origin:
        return self.file_origin

    @property
    @override
    def libraries(self) -> tuple[str, ...]:
        return ("lm_eval",) if self.settings.protocol == "harness" else ()

    @override
    def identity(self, source: Source) -> dict[str, object]:
        names = ("name", "field", "document_start", "separator", "protocol", "window", "stride", "limit", "add_bos")
        ending = next(ending for ending in READERS if self.file.name.endswith(ending))  # which says how the file is read
        settings = {name: getattr(self.settings, name) for name in names}
        window = {"window": self.windows(source).window}
        return {"sha256": self.sha256, "ending": ending, **settings, **window, **self._own_code}

    @property
    def _own_code(self) -> dict[str, str]:
        """What identifies a protocol of the user's own, besides its name."""
        kind = type(make_protocol(self.settings))
        file = inspect.getsourcefile(kind)
        return {"code": hash_file(Path(file))} if file and not kind.__module__.startswith("bitsure.") else {}

    def windows(self, source: Source) -> WindowSettings:
        """Return the size of windows for a model, and the rest of what decides them.

        Raises:
            UserError: If `text.window` is more than the model's context.
        """
        settings, context = self.settings, context_length(source.path)
        if settings.window is not None and context is not None and settings.window > context:
            raise UserError(
                f"text.window={settings.window}: {source.name} reads {context:,} tokens at most. Give as many or fewer; "
                "left out, it is the protocol's own or the model's context, whichever is smaller."
            )
        own = settings.window or make_protocol(settings).default_window or context or DEFAULT_CONTEXT
        return WindowSettings(min(own, context or own), settings.stride, settings.limit, settings.add_bos)

    @override
    def cut(self, source: Source, memo: Memo) -> TokenizedText:
        return memo(cut_text, self, source, self.windows(source))

    @override
    def describe(self, source: Source, cut: TokenizedText) -> TextOrigin:
        return TextOrigin(
            task=self.task,
            protocol=self.settings.protocol,
            window=cut.window,
            stride=cut.stride,
            limit=self.settings.limit,
            bos=cut.bos,
            windows=len(cut.windows),
            tokens=cut.n_scored,
            sha256=self.sha256,
            origin=dict(self.origin),
        )

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


def cut_text(text: ScoredText, source: Source, windows: WindowSettings) -> TokenizedText:
    """Return the windows of a text for the tokenizer of a model. Raises UserError if it cannot be read, or is too short."""
    return make_protocol(text.settings).cut(text.read(), source.load_tokenizer(), windows)


def _lines(text: str) -> list[str]:
    """Return the lines of a text as the rows of a data set: with their ends, blank ones empty."""
    return [line if line.strip() else "" for line in re.findall(r"[^\n]*\n|[^\n]+", text)]


def locate_text_file(settings: TextSettings, hub_mirror: str | None, store: Store | None = None) -> ScoredText | None:
    """Find a text's file before anything heavy is loaded; None where no file is scored.

    Args:
        settings: Which text.
        hub_mirror: The directory of a mirror of the hub.
        store: Knows the hashes of files that have not changed.

    Raises:
        UserError: If the file is not available, or is of no kind that can be read.
    """
    if not settings.is_scored or settings.is_of_tasks:
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
            raise error.followed_by("\nOr another text: text=local text.path=FILE.") from error
    if not file.name.endswith(tuple(READERS)):
        raise UserError(f"text.path={file}: the name has to end in {', '.join(READERS)}.")
    (sha256,) = hash_each([file], store)
    origin = local_origin({file: sha256})
    if settings.path is None and settings.repo is not None and settings.file is not None:
        origin = file_origin(settings.repo, settings.file, file, sha256, hub_mirror)
    return ScoredText(settings, file, sha256, origin)
