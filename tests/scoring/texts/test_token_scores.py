"""What logits say of tokens, against a plain computation in doubles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

from bitsure.scoring.texts import token_scores as module
from bitsure.scoring.texts.token_scores import TokenScores


def logits(scale=1.0, seed=0, n=7, vocabulary=211) -> torch.Tensor:
    return scale * torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(seed))


TOKENS = torch.arange(7) * 11


def scores_of(*given: torch.Tensor) -> TokenScores:
    return TokenScores.read([module.token_scores(*given)])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_scores_are_those_of_a_plain_computation(scale, monkeypatch):
    monkeypatch.setitem(module.PART, "cpu", 3 * 211)  # several parts
    full, quantized = logits(scale), logits(scale) + logits(0.01, seed=1)
    scores = scores_of(quantized, TOKENS, full)
    p, q = (log_softmax(side.double().numpy(), axis=1) for side in (full, quantized))
    np.testing.assert_allclose(scores.logprob, q[np.arange(7), TOKENS], rtol=1e-12)
    np.testing.assert_array_equal(scores.top_token, q.argmax(1))
    np.testing.assert_allclose(scores.top_logprob, q.max(1), rtol=1e-12, atol=1e-15)
    expected = (rel_entr(np.exp(p), np.exp(q)) - np.exp(p) + np.exp(q)).sum(1)
    np.testing.assert_allclose(scores.kl_divergence, expected, rtol=1e-6, atol=1e-14)


def test_identical_models_diverge_by_exactly_nothing():
    for scale in (0.0, 1.0, 50.0):
        divergence = scores_of(logits(scale), TOKENS, logits(scale)).kl_divergence
        assert (divergence == 0).all()
    assert scores_of(logits(), TOKENS).kl_divergence is None


def test_a_tiny_divergence_is_not_lost_and_never_below_zero_by_more_than_rounding():
    full = logits(10.0, n=200)
    quantized = full.clone()
    quantized[:, ::2] += 2e-6 * full[:, ::2].sign()
    divergence = scores_of(quantized, torch.zeros(200, dtype=torch.long), full).kl_divergence
    assert divergence.min() >= -1e-9
    assert 1e-14 < divergence.mean() < 1e-10


def test_padding_of_the_vocabulary_takes_no_part_and_what_is_ruled_out_is_infinite():
    full, quantized = logits(), logits() + logits(0.1, seed=1)
    expected = scores_of(quantized[:, :200], TOKENS, full[:, :200])
    full[:, 200:] = quantized[:, 200:] = -torch.inf
    scores = scores_of(quantized, TOKENS, full)
    np.testing.assert_allclose(scores.kl_divergence, expected.kl_divergence, rtol=1e-9)
    quantized[3, 5] = -torch.inf
    divergence = scores_of(quantized, TOKENS, full).kl_divergence
    assert np.isinf(divergence[3])
    assert np.isfinite(np.delete(divergence, 3)).all()


def test_of_equal_logits_the_first_is_the_top_token():
    assert scores_of(torch.tensor([[1.0, 3.0, 3.0]]), torch.tensor([0])).top_token[0] == 1
