"""Text from outside, made safe to show: names of models, tasks and files may come from anyone."""

from __future__ import annotations

import logging
import re

# Control characters but tab and newline: a terminal obeys sequences of them. Marks and overrides of direction, and line
# separators: they make text read as other text than it is.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
LONGEST_WORD = 40  # characters


def without_controls(text: str) -> str:
    """Return text in which each control character or direction control stands as �."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def ending(text: str, longest: int) -> str:
    """Return a text, or its end of at most `longest` characters behind an ellipsis, which begins at a word.

    Where there is no space within LONGEST_WORD characters, as in writing without spaces, it begins anywhere.
    """
    if len(text) <= longest:
        return text
    end = text[-longest - 1 :]
    cut = re.match(rf"\S{{0,{LONGEST_WORD}}}\s+(?=\S)", end)
    return "… " + (end[cut.end() :] if cut else end[1:])


class PlainFormatter(logging.Formatter):
    """Formats log records, their tracebacks too, so that they do not control the terminal that shows them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without control characters."""
        return without_controls(super().format(record))
