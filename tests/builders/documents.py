"""Code blocks of the documents, as they stand there."""

from __future__ import annotations

import re

from bitsure.config.paths import PROJECT


def code_blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language in a page of docs/, in their order."""
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
