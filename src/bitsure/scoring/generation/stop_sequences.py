"""Whether an answer contains a stop sequence, decided after each token as lm-evaluation-harness decides it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOOK_BACK = 2  # tokens beyond those that the sequence has by itself: an answer may cut it otherwise
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a token decodes to that is a part of a character


class StopSequences:
    """Stop sequences of some answers.

    Args:
        tokenizer: Decodes answers.
        sequences: The texts that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sequences: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._by_length: dict[int, list[str]] = {}  # tokens that are looked at → the sequences
        for sequence in sequences:
            n = len(tokenizer.encode(sequence, add_special_tokens=False)) + LOOK_BACK
            self._by_length.setdefault(n, []).append(sequence)
        self._last = {sequence[-1:] for sequence in sequences}
        self._may_end: dict[int, bool] = {}  # token → whether a sequence can end with it

    def end(self, tokens: Sequence[int]) -> bool:
        """Return whether a sequence ends with the last token of an answer.

        Args:
            tokens: All tokens of the answer so far.
        """
        if not self._can_end_with(tokens[-1]):
            return False
        for n, sequences in self._by_length.items():
            text = self._decode(tokens[-n:])
            if any(sequence in text for sequence in sequences):
                return True
        return False

    def _can_end_with(self, token: int) -> bool:
        """Return whether a token has the last letter of a sequence: most have none, and decoding takes longest."""
        if token not in self._may_end:
            text = self._decode([token, token])  # the first token of a text may lose its space
            self._may_end[token] = UNFINISHED in text or any(last in text for last in self._last)
        return self._may_end[token]

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))
