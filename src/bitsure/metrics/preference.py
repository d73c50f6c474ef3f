"""Which of two models' answers to a question full precision finds likelier, a token on average.

No judge and no right answer is needed. Full precision wrote one of the two itself, and greedily, so that its own is mostly the
likelier one: what tells is how often the other is, and how far apart they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.statistic import SumStatistic, mean, proportion

PREFERENCE = "preference/"
PREFERS_FULL, PREFERS_QUANTIZED, PREFERS_NEITHER = (f"{PREFERENCE}{name}" for name in ("full", "quantized", "equal"))
BALANCE, TOKEN_LOGPROB = f"{PREFERENCE}balance", f"{PREFERENCE}token_logprob"


@dataclass(frozen=True)
class Preferences:
    """What full precision makes of two answers to each of n questions.

    Attributes:
        change: Its mean log-probability of a token of the quantized model's answer less that of its own, nats, shape (n,); 0
            where they have the same tokens.
    """

    change: FloatArray

    def __len__(self) -> int:
        return len(self.change)


def preferences(before: pa.Table, after: pa.Table) -> Preferences | None:
    """Return what full precision makes of both models' answers; None where it did not read the quantized model's.

    Args:
        before: Full precision's rows under `bitsure.records.answer_units.ANSWER_UNITS_SCHEMA`.
        after: The quantized model's, of the same questions in the same order.
    """
    if after["preference"].null_count or before["preference"].null_count < len(before):  # a quantized model's are no baseline
        return None
    return Preferences(after["preference"].to_numpy())


def preference_metrics() -> dict[str, SumStatistic[Preferences]]:
    """Return the shares of questions by whose answer full precision finds likelier, and by how much."""
    return {
        PREFERS_FULL: proportion(lambda p: np.asarray(p.change < 0, dtype=float)),
        PREFERS_QUANTIZED: proportion(lambda p: np.asarray(p.change > 0, dtype=float)),
        PREFERS_NEITHER: proportion(lambda p: np.asarray(p.change == 0, dtype=float)),
        BALANCE: mean(lambda p: np.sign(p.change), least=-1.0, most=1.0),
        TOKEN_LOGPROB: mean(lambda p: p.change),
    }
