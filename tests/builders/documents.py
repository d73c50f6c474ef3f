"""Fenced blocks of the documents, as they stand there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from bitsure.config.paths import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<needs><!-- needs: [^\n]+ -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class FencedBlock:
    """A fenced block of a page; `needs` says whether the comment before it names what is not here."""

    page: Path
    language: str
    text: str
    needs: bool


def fenced_blocks(page: Path) -> list[FencedBlock]:
    """Return the fenced blocks of a page, in their order."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [FencedBlock(page, block["language"], block["text"], block["needs"] is not None) for block in found]


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of a block, without comments and without variables before it."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words[[re.match(r"[A-Z_]+=", word) is None for word in words].index(True) :] for words in lines if words]


def code_blocks(page: str, language: str) -> list[str]:
    """Return the text of the fenced blocks of a language in a page of docs/, in their order."""
    return [block.text for block in fenced_blocks(PROJECT / "docs" / page) if block.language == language]
