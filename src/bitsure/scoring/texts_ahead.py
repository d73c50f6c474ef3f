"""The tokens of texts that are about to be asked for, a block of them in one call of the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

BLOCK = 512  # texts in one call; the tokenizer's own overhead of a call is many times what it takes for a short text


class TextsAhead:
    """Tokenizes texts; the tokens of the last block are remembered.

    Args:
        encode_all: Returns the token ids of each of some texts.
    """

    def __init__(self, encode_all: Callable[[list[str]], list[list[int]]]) -> None:
        self._encode_all = encode_all
        self._ahead: Iterator[str] = iter(())
        self._known: dict[str, list[int]] = {}

    def expect(self, texts: Iterable[str]) -> None:
        """Take these as the texts that are asked for next, about in this order. Any other text may still be asked for."""
        self._ahead = iter(texts)

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        if text not in self._known:
            block = list(dict.fromkeys([text, *islice(self._ahead, BLOCK)]))
            self._known = dict(zip(block, self._encode_all(block), strict=True))
        return list(self._known[text])
