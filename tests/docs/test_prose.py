"""What a newcomer reads first reads easily: no sentence is longer than 39 words."""

from __future__ import annotations

import re

import pytest

from bitsure.config.paths import PROJECT

FIRST = ("index", "quickstart", "reading", "choosing", "verdict", "faq", "models", "tasks", "quantizers", "sweeps", "scale")
PAGES = [PROJECT / "README.md", *(PROJECT / "docs" / f"{name}.md" for name in FIRST)]
LONGEST = 39  # words
APART = re.compile(r"^```.*?^```|<!-- made: .*?<!-- end -->|<!--.*?-->|^[#|][^\n]*$", re.MULTILINE | re.DOTALL)
PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))")
SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`*\[(0-9‖])")


def sentences(text: str) -> list[str]:
    """Return the sentences of a page, without its headings, tables, code and what commands made."""
    paragraphs = (" ".join(part.split()) for part in PARAGRAPH.split(APART.sub("", text)))
    return [sentence for paragraph in paragraphs for sentence in SENTENCE.split(paragraph) if sentence]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_sentence_is_long(page):
    long = [sentence for sentence in sentences(page.read_text(encoding="utf-8")) if len(sentence.split()) > LONGEST]
    assert long == []


def test_a_long_sentence_is_seen_and_a_list_is_many():
    assert [len(sentence.split()) for sentence in sentences(f"# Title\n\n{'word ' * 50}end. Short one.\n- a\n- b\n")] == [
        51,
        2,
        2,
        2,
    ]
