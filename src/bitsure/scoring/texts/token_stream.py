"""A text tokenized as a whole: what protocols that pay no heed to documents cut into windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitsure.base.errors import UserError
from bitsure.scoring.texts.tokenized_text import TextWindow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHARACTERS_A_TOKEN = 8  # of the text that is tokenized first where a limit says how many tokens are needed
MARGIN = 64  # tokens at the end of a part of a text that may be others when the text goes on


@dataclass(frozen=True)
class TokenStream:
    """The tokens of a text, shape (n,) each.

    Attributes:
        tokens: Token ids.
        documents: The document that each token begins in, from 0.
        positions: Each token's place in its document, in tokens from 0.
        n_bytes: The UTF-8 bytes of the text that each token stands for; 0 for special tokens.
    """

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]
    positions: NDArray[np.int64]
    n_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, limit: int | None) -> TokenStream:
        """Return the first tokens; all with no limit."""
        return TokenStream(self.tokens[:limit], self.documents[:limit], self.positions[:limit], self.n_bytes[:limit])

    def after(self, token: int) -> TokenStream:
        """Return the stream with a special token before it, which stands for no text; places in documents do not count it."""
        return TokenStream(
            np.concatenate([[token], self.tokens]),
            np.concatenate([self.documents[:1], self.documents]),
            np.concatenate([[0], self.positions]),
            np.concatenate([[0], self.n_bytes]),
        )

    def window(self, start: int, end: int, first_scored: int) -> TextWindow:
        """Return the tokens from `start` to before `end` as a window, those from the place `first_scored` in it scored."""
        scored = slice(start + first_scored, end)
        return TextWindow(
            self.tokens[start:end], first_scored, self.documents[scored], self.positions[scored], self.n_bytes[scored]
        )


def tokenize_joined(
    parts: Sequence[str],
    document_of_part: Sequence[int],
    separator: str,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
) -> TokenStream:
    """Tokenize a text at once, without special tokens.

    Where there is a limit, only as many parts are tokenized as its tokens need.

    Args:
        parts: What is joined into the text.
        document_of_part: The document that each part is of, from 0, not falling.
        separator: What stands between two parts.
        tokenizer: The tokenizer.
        limit: How many tokens are needed; None for all.
    """
    count = len(parts)
    if limit is not None:
        count = _parts_with(parts, CHARACTERS_A_TOKEN * limit)
    while True:
        stream = _tokenize(parts[:count], document_of_part[:count], separator, tokenizer)
        if limit is None or count == len(parts) or len(stream) >= limit + MARGIN:
            return stream.first(limit)
        count = min(len(parts), 2 * count)


def _parts_with(parts: Sequence[str], characters: int) -> int:
    """Return how many parts from the first on have so many characters together; all if they have fewer."""
    ends = np.cumsum([len(part) for part in parts])
    return min(len(parts), int(np.searchsorted(ends, characters)) + 1)


def _tokenize(
    parts: Sequence[str], document_of_part: Sequence[int], separator: str, tokenizer: PreTrainedTokenizerBase
) -> TokenStream:
    text = separator.join(parts)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    tokens = np.array(encoded["input_ids"], dtype=np.int64)
    if not len(tokens):
        return TokenStream(tokens, tokens, tokens, tokens)
    if tokenizer.is_fast:
        spans = np.array(encoded["offset_mapping"], dtype=np.int64)
    else:  # a tokenizer in Python does not say where in the text its tokens lie: they count as equally long
        edges = np.linspace(0, len(text), len(tokens) + 1).astype(np.int64)
        spans = np.stack([edges[:-1], edges[1:]], axis=1)
    starts = np.array([0, *accumulate(len(part) + len(separator) for part in parts[:-1])])
    documents = np.array(document_of_part)[np.searchsorted(starts, spans[:, 0], side="right") - 1]
    documents = np.maximum.accumulate(documents)
    first_of_document = np.concatenate([[True], documents[1:] != documents[:-1]])
    begin = np.maximum.accumulate(np.where(first_of_document, np.arange(len(tokens)), 0))
    return TokenStream(tokens, documents, np.arange(len(tokens)) - begin, bytes_of_spans(text, spans))


def bytes_of_spans(text: str, spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many UTF-8 bytes each span brings beyond the ends of those before it; together they have the text's.

    Args:
        text: The text.
        spans: First character, and one past the last, of each token, shape (n, 2). They may leave out characters, such as
            spaces, which count to the next token; tokens that are parts of one character all span it.
    """
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    width = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    until = np.concatenate([[0], np.cumsum(width)])
    ends = np.maximum.accumulate(spans[:, 1])
    ends[-1] = len(text)
    return np.diff(until[ends], prepend=0)


def bytes_of_tokens(tokens: list[int], text: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Return how many UTF-8 bytes of a text each token stands for, 0 for special tokens.

    Tokens count as equally long where the text alone has others: a prompt's last token may depend on what follows it.

    Args:
        tokens: The text's tokens, of which the first ones may be missing.
        text: The text.
        tokenizer: The tokenizer.
    """
    own = tokenize_joined([text], [0], "", tokenizer, None)
    kept = min(len(tokens), len(own))
    if tokens[-kept:] != own.tokens[-kept:].tolist():
        return np.diff(np.linspace(0, len(text.encode()), len(tokens) + 1).astype(np.int64))
    return np.concatenate([np.zeros(len(tokens) - kept, dtype=np.int64), own.n_bytes[-kept:]])


def require(available: int, needed: int, what: str, place: str) -> None:
    """Raise UserError if a text has fewer tokens than one window needs."""
    if available < needed:
        raise UserError(
            f"{place} has {available:,} tokens, and {what} needs {needed:,}. Give a longer text (or a larger text.limit), "
            "or a smaller text.window."
        )
