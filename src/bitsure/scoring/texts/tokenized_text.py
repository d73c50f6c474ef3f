"""A text as windows of tokens, of which the last ones are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TextWindow:
    """One input of the model. Of its n tokens the last m are scored, each given all tokens before it in the window.

    Attributes:
        tokens: Token ids, int64, shape (n,).
        first_scored: n − m, at least 1.
        documents: Which document each scored token is of, from 0, shape (m,).
        positions: Each scored token's place in its document, counted in tokens from 0, shape (m,).
        n_bytes: The UTF-8 bytes of the text that each scored token stands for, shape (m,). The bytes of a character that is
            several tokens count at the first of them.
        tasks: What metrics.json calls the text that each scored token is of, shape (m,), where one pass has several; None
            where it has one.
    """

    tokens: NDArray[np.int64]
    first_scored: int
    documents: NDArray[np.int64]
    positions: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    tasks: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def scored(self) -> NDArray[np.int64]:
        """The tokens that are scored, shape (m,)."""
        return self.tokens[self.first_scored :]


@dataclass(frozen=True)
class TokenizedText:
    """A text as a protocol cuts it for one tokenizer.

    Attributes:
        windows: The windows in the text's order; there is at least one.
        window: The most tokens of a window.
        stride: Tokens between the beginnings of windows; None where windows do not overlap.
        bos: How the protocol uses the BOS token here, in words.
    """

    windows: tuple[TextWindow, ...]
    window: int
    stride: int | None
    bos: str

    @property
    def n_scored(self) -> int:
        """How many tokens are scored."""
        return sum(len(window.scored) for window in self.windows)
