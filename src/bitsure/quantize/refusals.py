"""The error for a model that cannot be quantized here."""

from __future__ import annotations

from bitsure.base.errors import UserError

IN_FULL_PRECISION = "quant=none scores it in full precision, or says why it cannot be scored."


def not_quantizable(reason: str) -> UserError:
    """Return the error for a model that cannot be quantized, with what is left to do.

    It is not known here whether it can be scored: scoring tries the loaded model, and refuses some, such as XLNet, which reads
    later tokens.

    Args:
        reason: What rules it out, in whole sentences.
    """
    return UserError(f"{reason} {IN_FULL_PRECISION}")
