"""The documents of a text that is scored, as lines or rows of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TextDocuments:
    """Documents, each of one part or several.

    Attributes:
        place: Where the text is, for error messages.
        parts: The lines or rows of the file, or whole documents.
        document_of_part: The number of the document that each part is of, from 0, not falling, shape (parts,).
        are_lines: Whether parts are lines of documents; otherwise each is a document.
        separator: Stands between parts where a protocol joins them into one text.
    """

    place: str
    parts: Sequence[str]
    document_of_part: NDArray[np.int64]
    are_lines: bool = False
    separator: str = "\n\n"

    @property
    def documents(self) -> list[str]:
        """The documents, each as it was in its file."""
        whole: dict[int, list[str]] = {}
        for number, part in zip(self.document_of_part.tolist(), self.parts, strict=True):
            whole.setdefault(number, []).append(part)
        return ["".join(map(_line, parts)) if self.are_lines else parts[0] for parts in whole.values()]


def _line(part: str) -> str:
    """Return a row of a data set as the line of the file that it was: WikiText's blank lines, now empty, held a space."""
    return f"{part.removesuffix(chr(10)) or ' '}\n"
