from __future__ import annotations

import pytest
import torch

from bitsure.quantize.inference.orthogonal import Orthogonal, random_hadamard

NAMES = {
    1: "sign",
    64: "Hadamard 8 ⊗ Hadamard 8",
    96: "Hadamard 12 ⊗ Hadamard 8",  # Paley's first construction with 11
    576: "Hadamard 36 ⊗ Hadamard 16",  # his second with 17
    320: "Hadamard 20 ⊗ Hadamard 16",
    172: "orthogonal 43 ⊗ Hadamard 4",  # 171 and 85 are no primes
    15: "orthogonal 15",
}


def drawn(width: int, seed: int = 0) -> Orthogonal:
    return random_hadamard(width, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", NAMES)
def test_every_width_has_an_orthogonal_matrix_that_says_what_it_is(width):
    rotation, identity = drawn(width), torch.eye(width, dtype=torch.float64)
    assert rotation.name == NAMES[width]
    dense = rotation(identity)
    assert torch.allclose(dense @ dense.T, identity, atol=1e-12)
    assert torch.allclose(dense, torch.diag(rotation.signs) @ torch.kron(rotation.left, rotation.right), atol=1e-12)
    x = torch.randn(3, 2, width, dtype=torch.float64)
    assert torch.allclose(rotation.back(rotation(x)), x, atol=1e-12)
    if "orthogonal" not in rotation.name:
        assert torch.allclose(dense.abs(), torch.full_like(dense, width**-0.5))


def test_the_seed_draws_it():
    assert torch.equal(drawn(64).signs, drawn(64).signs)
    assert not torch.equal(drawn(64).signs, drawn(64, seed=1).signs)


@pytest.mark.parametrize("width", [64, 172])
def test_the_vector_of_ones_can_be_kept(width):
    kept, x = drawn(width).keeping_ones(), torch.randn(4, width, dtype=torch.float64)
    assert torch.allclose(kept(torch.ones(width).double()), torch.ones(width).double(), atol=1e-12)
    assert torch.allclose(kept(x).mean(-1), x.mean(-1), atol=1e-12)
    assert torch.allclose(kept.back(kept(x)), x, atol=1e-12)
