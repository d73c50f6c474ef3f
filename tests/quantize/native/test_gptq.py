"""Our GPTQ against its definition, against gptqmodel's solver, and where it must fail."""

from __future__ import annotations

import os

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.gptq_solver import TILE, inverse_of_upper_factor, round_with_hessian
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from tests.builders.marks import needs_gptqmodel
from tests.builders.quantizing import output_error


def settings(**changes) -> Gptq:
    return Gptq(
        **{"bits": 4, "group_size": 32, "symmetric": True, "backend": "native", "desc_act": False, "damp_percent": 0.01}
        | changes
    )


def problem(rows=48, columns=160, tokens=600, seed=0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights and correlated inputs: W (rows, columns), X (tokens, columns) and their Hessian."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    x = torch.randn(tokens, columns, generator=generator) @ (torch.eye(columns) + 2 * mix)
    return torch.randn(rows, columns, generator=generator), x, x.T @ x / tokens


def by_the_book(W, H, quant):
    """Optimal brain quantization in the fixed order, as equations (2) and (3) say it: one column at a time, H⁻¹ made anew."""
    W, H = W.double().clone(), H.double().clone()
    H.diagonal().add_(quant.damp_percent * H.diagonal().mean())
    out, scales, size = torch.zeros_like(W), None, quant.group_size
    for i in range(W.shape[1]):
        if i % 128 == 0:
            block = W.clone()  # scales come from the weights at the start of a block of 128 columns
        if i % size == 0:
            scales = (2 * block[:, i : i + size].abs().amax(1) / (2**quant.bits - 1)).half().double()
        codes = ((W[:, i] / scales).round() + 2 ** (quant.bits - 1)).clamp(0, 2**quant.bits - 1)
        out[:, i] = scales * (codes - 2 ** (quant.bits - 1))
        inverse = torch.linalg.inv(H[i:, i:])
        W[:, i:] -= ((W[:, i] - out[:, i]) / inverse[0, 0])[:, None] * inverse[0]
    return out.float()


@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (3, 32), (2, 64), (4, 48)])
def test_it_is_the_papers_algorithm(bits, group_size):
    W, x, H = problem(rows=16)
    quant = settings(bits=bits, group_size=group_size)
    ours, expected = round_with_hessian(W, H, quant, (), "w").dequantize(), by_the_book(W, H, quant)
    same = (ours - expected).abs() < 1e-4
    assert same.float().mean() > 0.98  # a value on the edge between two codes may fall to either side
    assert (x @ (ours - W).T).norm().item() == pytest.approx((x @ (expected - W).T).norm().item(), rel=0.01)


@needs_gptqmodel
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("desc_act", [True, False])
def test_it_agrees_with_gptqmodels_solver(bits, symmetric, desc_act, tmp_path):
    from bitsure.base import terminal

    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    W, x, H = problem()
    layer = torch.nn.Linear(160, 48, bias=False)
    layer.weight.data = W.clone()
    threads = torch.get_num_threads()
    with terminal.output_to(tmp_path / "log"):
        from gptqmodel.quantization import GPTQ, QuantizeConfig

        config = QuantizeConfig(
            bits=bits, group_size=32, sym=symmetric, desc_act=desc_act, damp_percent=0.01, act_group_aware=False, fallback=None
        )
        theirs = GPTQ(layer, config)
        theirs.quantizer.configure(perchannel=True)
        theirs.add_batch(x[None], layer(x)[None])
        oracle = theirs.quantize()[0].float()
    torch.set_num_threads(threads)
    ours = round_with_hessian(W, H, settings(bits=bits, symmetric=symmetric, desc_act=desc_act), (), "w")
    their_error = ((x @ (oracle - W).T).norm() / (x @ W.T).norm()).item()
    assert output_error(x, W, ours) == pytest.approx(their_error, rel=0.02)
    if bits < 8:  # there steps are so fine that the half precision of our scales moves codes, though not the output's error
        assert (ours.dequantize() - oracle).norm() < 0.35 * (oracle - W).norm()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 0, 32, 100, 128])
@pytest.mark.parametrize("remainder", ["shorten", "pad", "row"])
def test_it_beats_rounding_in_output_for_every_group(bits, group_size, remainder):
    W, x, H = problem()
    ours = round_with_hessian(W, H, settings(bits=bits, group_size=group_size, remainder=remainder), (), "w")
    rounded = round_to_nearest(W, Rtn(bits, group_size, True, remainder=remainder))
    assert ours.dequantize().shape == W.shape
    assert ours.storage_bits == rounded.storage_bits and torch.equal(ours.group_of, rounded.group_of)
    assert output_error(x, W, ours) < 0.95 * output_error(x, W, rounded)


def test_act_order_remembers_whose_group_is_whose():
    W, x, H = problem()
    x[:, 7] *= 30
    H = x.T @ x / len(x)
    weight = round_with_hessian(W, H, settings(desc_act=True), (), "w")
    assert weight.group_of[7] == 0 and sorted(weight.group_of.tolist()) == [g for g in range(5) for _ in range(32)]
    assert output_error(x, W, weight) < output_error(x, W, round_with_hessian(W, H, settings(), (), "w"))


def test_inputs_that_were_always_zero_are_rounded_to_nearest_and_disturb_nothing():
    W, x, _ = problem()
    x[:, 40:44] = 0
    weight = round_with_hessian(W, x.T @ x / len(x), settings(), (), "w")
    step = weight.scales.float()[:, weight.group_of]
    assert ((weight.dequantize() - W).abs() <= 0.51 * step + 1e-6)[:, 40:44].all()
    assert output_error(x, W, weight) < output_error(x, W, round_to_nearest(W, Rtn(4, 32, True)))


@pytest.mark.parametrize("size", [1, 64, TILE, TILE + 1, 2 * TILE, 3 * TILE - 5])
def test_the_factor_of_the_inverse_whatever_the_tiles(size):
    H = problem(columns=size, tokens=4 * size)[2]
    H.diagonal().add_(0.01 * H.diagonal().mean())
    factor = inverse_of_upper_factor(H.clone())
    expected = torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)
    assert torch.equal(factor, factor.triu())
    assert (factor - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("where", [0, TILE + 3])
def test_there_is_no_factor_where_a_pivot_is_negative(where):
    H = torch.eye(2 * TILE)
    H[where, where] = -1
    assert inverse_of_upper_factor(H) is None


def test_a_hessian_that_is_not_positive_definite_gets_more_damping_and_says_so(caplog):
    W, x, _ = problem(tokens=5)  # rank 5 of 160
    H = x.T @ x / 5
    H -= 0.05 * H.diagonal().mean() * torch.eye(160)  # as rounding errors do, only more so
    weight = round_with_hessian(W, H, settings(), (), "layers.0.fc1")
    assert "layers.0.fc1: the Hessian is not positive definite with damping 0.01: trying 0.1" in caplog.text
    assert weight.dequantize().isfinite().all()


def test_inputs_that_were_all_zero_leave_rounding_to_nearest():
    W = problem()[0]
    weight = round_with_hessian(W, torch.zeros(W.shape[1], W.shape[1]), settings(), (), "w")
    assert torch.equal(weight.codes, round_to_nearest(W, Rtn(4, 32, True)).codes)


def test_a_hessian_past_mending_names_the_layer():
    W, _, H = problem()
    with pytest.raises(UserError, match=r"Hessian of layers\.0\.fc1 is not positive definite, even damped by 1 "):
        round_with_hessian(W, H - 5 * H.diagonal().mean() * torch.eye(160), settings(), (), "layers.0.fc1")
