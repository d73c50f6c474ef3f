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
    def read(cls, parts: Sequence[torch.Tensor]) -> TokenScores:
        """Return what `token_scores` computed of several parts of a text, at least one, in their order.

        They come to main memory together: each copy would wait for everything that a GPU has been given.
        """
        logprob, top_token, top_logprob, *divergence = torch.cat(list(parts), 1).cpu().numpy()
        return cls(logprob, top_token.astype(np.int32), top_logprob, divergence[0] if divergence else None)


def token_scores(logits: torch.Tensor, tokens: torch.Tensor, full: torch.Tensor | None = None) -> torch.Tensor:
    """Return what a model's logits say of one token each.

    KL(full ‖ quantized) = Σ_v p_v (ln p_v − ln q_v) is summed in doubles, as Σ_v p_v (z_v − z'_v) − ln Z + ln Z' with z the
    full model's logits, z' the quantized one's, and Z the sum of exp z. Where all logits are equal it is exactly 0. It is
    above −1e-9, and infinite where the quantized model rules out what the full one does not.

    Args:
        logits: The model's logits z', shape (n, vocabulary).
        tokens: The token that is scored in each row, shape (n,).
        full: The full model's logits z, of the same shape; None for a model by itself.

    Returns:
        A row for each field of `TokenScores`, the divergence only beside a full model; shape (3 or 4, n), float64.
    """
    most = max(1, PART.get(logits.device.type, PART["cpu"]) // logits.shape[1])
    slices = (slice(first, first + most) for first in range(0, len(logits), most))
    return torch.cat([_scores(logits[rows], tokens[rows], None if full is None else full[rows]) for rows in slices], 1)


def _scores(logits: torch.Tensor, tokens: torch.Tensor, full: torch.Tensor | None) -> torch.Tensor:
    softmax = _softmax(logits)
    log_sums = softmax.sums.log()
    true = softmax.logits.gather(1, tokens[:, None])[:, 0]
    rows = [true - log_sums, _places_of_largest(softmax.logits).double(), -log_sums]
    return torch.stack(rows if full is None else [*rows, _kl_divergence(_softmax(full), softmax)])


def _places_of_largest(values: torch.Tensor) -> torch.Tensor:
    """Return the first place of each row's largest value; on a CPU, NumPy finds it several times faster than PyTorch."""
    return torch.from_numpy(values.numpy().argmax(-1)) if values.device.type == "cpu" else values.argmax(-1)


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
    if change.is_cuda:  # Asking whether that is needed would wait for the GPU.
        change.masked_fill_(p.exponentials == 0, 0.0)
    mean_change: torch.Tensor = torch.linalg.vecdot(p.exponentials, change)
    # Some logits may be −∞, as those of a padded vocabulary: they have p = 0.
    if not change.is_cuda and not mean_change.isfinite().all():
        mean_change = torch.where(p.exponentials > 0, p.exponentials * change, 0.0).sum(-1)
    return mean_change / p.sums - (p.sums.log() - q.sums.log())
