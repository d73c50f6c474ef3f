"""The windows in which the harness scores a whole text (`loglikelihood_rolling`)."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from bitsure.scoring.requests import Request


def tokens_added(tokens: Sequence[int], own: Sequence[int]) -> tuple[int, int]:
    """Return how many tokens a tokenizer put before a text and after it.

    Args:
        tokens: The text's token ids as the tokenizer gives them.
        own: The same without special tokens.
    """
    added = len(tokens) - len(own)
    before = next((n for n in range(added + 1) if tokens[n : n + len(own)] == own), 0)
    return before, max(0, added - before) if tokens[before : before + len(own)] == own else 0


def rolling_requests(tokens: list[int], added: tuple[int, int], prefix: int | None, max_length: int) -> list[Request]:
    """Return the windows that HFLM scores of a text; tokens that the text does not have are context, or left out.

    Args:
        tokens: The text's token ids as the tokenizer gives them.
        added: How many of them it put before the text and after it; (0, 0) scores them as if they were the text's.
        prefix: What stands before the first token: BOS or EOS.
        max_length: The model's context, tokens.
    """
    before, after = added
    windows = get_rolling_token_windows(tokens[: len(tokens) - after], prefix, max_length, context_len=1)
    disjoint = [make_disjoint_window(window) for window in windows]
    if before:
        scored = disjoint[0][1]
        disjoint[0] = scored[:before], scored[before:]
    return [(context, scored) for context, scored in disjoint if scored]
