"""How alike two models are in which tokens of a text they find hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.statistic import SumStatistic
from bitsure.records.record import flat_column
from bitsure.records.text_units import token_column


@dataclass(frozen=True)
class TokenMoments:
    """Sums over the tokens of each of n documents or windows.

    Attributes:
        sums: Of 1, x, y, x², y² and xy, with x and y the NLL of a token less its mean over all tokens for full precision and
            the quantized model, nats, shape (n, 6).
    """

    sums: FloatArray

    def __len__(self) -> int:
        return len(self.sums)


def token_moments(before: pa.Table, after: pa.Table) -> TokenMoments:
    """Return the sums for the records of one text's documents or windows as two models scored them, in the same order."""
    x, y = (-token_column(side, "token_logprobs").astype(np.float64) for side in (before, after))
    x, y = x - x.mean(), y - y.mean()
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    return TokenMoments(np.add.reduceat(terms, flat_column(before, "tokens")[1][:-1], axis=0))


def token_correlation() -> SumStatistic[TokenMoments]:
    """Return Pearson's correlation of the tokens' NLL under two models, in [−1, 1]; NaN where one of them does not vary.

    Reference: `Cor(ln(PPL(Q)), ln(PPL(base)))` of llama.cpp's llama-perplexity.
    """
    return SumStatistic(lambda moments: moments.sums, _correlation, "percentile", -1.0, 1.0)


def _correlation(sums: FloatArray) -> FloatArray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance = xy / n - x / n * (y / n)
    correlation: FloatArray = covariance / np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
    return correlation
