"""Windows of tokens that a quantizer calibrates on, and those that its errors are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.calib_settings import MIN_SEQLEN, CalibSettings
from bitsure.quantize.calibration.calibration_text import CalibText

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

HELD_OUT_WINDOWS = 8  # on which the output error of every layer is measured


def draw_windows(
    text: CalibText, calib: CalibSettings, nsamples: int, tokenizer: PreTrainedTokenizerBase, context: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the windows of tokens to calibrate on and to measure on.

    Documents are shuffled by `calib.seed`, joined by the end token and cut into windows. The held-out windows come first, so
    that they are the same however many follow, and no two windows share a token.

    Args:
        text: What is drawn from.
        calib: `seqlen` and `seed`.
        nsamples: How many windows to calibrate on.
        tokenizer: The model's.
        context: The model's longest input; windows are no longer.

    Returns:
        Token ids, int64, of shapes (nsamples, seqlen) and (HELD_OUT_WINDOWS, seqlen).

    Raises:
        UserError: If the text is too short.
    """
    import torch

    seqlen = min(calib.seqlen, context or calib.seqlen)
    needed = (nsamples + HELD_OUT_WINDOWS) * seqlen
    ids = text.token_ids(needed, calib.seed, tokenizer)
    _check_enough(len(ids), nsamples, seqlen, f"calib={text.name}: {text.place}")
    windows = torch.tensor(ids[:needed], dtype=torch.long).view(-1, seqlen)
    return windows[HELD_OUT_WINDOWS:], windows[:HELD_OUT_WINDOWS]


def _check_enough(available: int, nsamples: int, seqlen: int, what: str) -> None:
    """Raise UserError, with settings that would fit, unless the tokens are enough for all windows."""
    windows = nsamples + HELD_OUT_WINDOWS
    if available >= windows * seqlen:
        return
    if available == 0:
        raise UserError(f"{what} holds nothing that the tokenizer makes a token of. Give a text with words in it.")
    fitting = []
    if nsamples and available // seqlen > HELD_OUT_WINDOWS:
        fitting.append(f"calib.nsamples={available // seqlen - HELD_OUT_WINDOWS}")
    if available // windows >= MIN_SEQLEN:
        fitting.append(f"calib.seqlen={available // windows}")
    raise UserError(
        f"{what} has {available:,} tokens, but {nsamples} windows of {seqlen} tokens and {HELD_OUT_WINDOWS} held out for "
        f"measuring need {windows * seqlen:,}. Give a longer text" + "".join(f", or {setting}" for setting in fitting) + "."
    )
