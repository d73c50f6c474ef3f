"""What logits over the whole vocabulary say of the tokens that follow: of one model, or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

PART = {"cpu": 2**17, "cuda": 2**26}  # logits that are worked on at once, as doubles; a CPU's stay in its cache


@dataclass(frozen=True)
class TokenScores:
    """What a model says of n tokens, given what stands before each; arrays have shape (n,).

    Attributes:
        logprob: The log-probability of the true token, nats.
        top_token: The most likely token, the first of equals.
        top_logprob: Its log-probability, nats.
        kl_divergence: KL(full ‖ this model) over the whole vocabulary, nats; None where no full model stands beside it.
    """

    logprob: NDArray[np.float64]
    top_token: NDArray[np.int32]
    top_logprob: NDArray[np.float64]
    kl_divergence: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.logprob)

    @classmethod
    def joined(cls, parts: Sequence[TokenScores]) -> TokenScores:
        """Return the scores of several parts of a text, at least one, as one, in their order."""
        divergences = [part.kl_divergence for part in parts if part.kl_divergence is not None]
        return cls(
            np.concatenate([part.logprob for part in parts]),
            np.concatenate([part.top_token for part in parts]),
            np.concatenate([part.top_logprob for part in parts]),
            np.concatenate(divergences) if divergences else None,
        )


def token_scores(logits: torch.Tensor, tokens: torch.Tensor, full: torch.Tensor | None = None) -> TokenScores:
    """Return what a model's logits say of one token each.

    KL(full ‖ quantized) = Σ_v p_v (ln p_v − ln q_v) is summed in doubles, as Σ_v p_v (z_v − z'_v) − ln Z + ln Z' with z the
    full model's logits, z' the quantized one's, and Z the sum of exp z. Where all logits are equal it is exactly 0. It is
    above −1e-9, and infinite where the quantized model rules out what the full one does not.

    Args:
        logits: The model's logits z', shape (n, vocabulary).
        tokens: The token that is scored in each row, shape (n,).
        full: The full model's logits z, of the same shape; None for a model by itself.
    """
    most = max(1, PART.get(logits.device.type, PART["cpu"]) // logits.shape[1])
    slices = (slice(first, first + most) for first in range(0, len(logits), most))
    parts = [_scores(logits[rows], tokens[rows], None if full is None else full[rows]) for rows in slices]
    return TokenScores.joined(parts)


def _scores(logits: torch.Tensor, tokens: torch.Tensor, full: torch.Tensor | None) -> TokenScores:
    softmax = _softmax(logits)
    log_sums = softmax.sums.log()
    true = softmax.logits.gather(1, tokens[:, None])[:, 0]
    divergence = None if full is None else _kl_divergence(_softmax(full), softmax)
    return TokenScores(
        (true - log_sums).cpu().numpy(),
        _places_of_largest(softmax.logits).astype(np.int32),
        -log_sums.cpu().numpy(),
        None if divergence is None else divergence.cpu().numpy(),
    )


def _places_of_largest(values: torch.Tensor) -> NDArray[np.int64]:
    """Return the first place of each row's largest value; on a CPU, NumPy finds it several times faster than PyTorch."""
    places: NDArray[np.int64] = values.numpy().argmax(-1) if values.device.type == "cpu" else values.argmax(-1).cpu().numpy()
    return places


class _Softmax(NamedTuple):
    """Rows of logits as doubles, less the largest of the row, with their exponentials and the sums of these."""

    logits: torch.Tensor
    exponentials: torch.Tensor
    sums: torch.Tensor


def _softmax(logits: torch.Tensor) -> _Softmax:
    values = logits.double()
    values -= values.amax(-1, keepdim=True)
    exponentials = values.exp()
    return _Softmax(values, exponentials, exponentials.sum(-1))


def _kl_divergence(p: _Softmax, q: _Softmax) -> torch.Tensor:
    change = p.logits - q.logits
    mean_change: torch.Tensor = torch.linalg.vecdot(p.exponentials, change)
    if not mean_change.isfinite().all():  # some logits are −∞, as those of a padded vocabulary: they have p = 0
        mean_change = torch.where(p.exponentials > 0, p.exponentials * change, 0.0).sum(-1)
    return mean_change / p.sums - (p.sums.log() - q.sums.log())
