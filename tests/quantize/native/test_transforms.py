from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.layers import quantize_layers
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.native.transforms import search_clip, search_scales
from bitsure.quantize.walk.layer_inputs import Inputs
from tests.builders.quantizing import output_error


def problem(outliers: bool) -> tuple[torch.Tensor, torch.Tensor, Inputs]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 100, generator=generator)
    if outliers:
        x[:, [3, 50]] *= 30
    return torch.randn(24, 100, generator=generator), x, Inputs(x.T @ x / 500, 500, x.abs().mean(0))


def quant(*transforms, bits=3, group_size=32, symmetric=True) -> Rtn:
    return Rtn(bits, group_size, symmetric, transforms=list(transforms))


def test_scales_protect_the_channels_that_carry_most():
    W, x, inputs = problem(outliers=True)
    scales = search_scales([W], inputs, quant("scale"))
    assert scales[[3, 50]].min() > 2 * scales[[i for i in range(100) if i not in (3, 50)]].max()
    scaled = quantize_layers({"w": W}, inputs, quant("scale"), "w")[0]["w"]
    assert output_error(x, W, scaled) < 0.8 * output_error(x, W, round_to_nearest(W, quant()))


def test_scaling_alone_changes_nothing_but_what_rounding_makes_of_it():
    W, _, inputs = problem(outliers=True)
    fine = quantize_layers({"w": W}, inputs, quant("scale", bits=8, group_size=16), "w")[0]["w"]
    assert (fine.dequantize() - W).norm() / W.norm() < 0.02
    assert fine.input_scales.dtype == torch.float16 and fine.input_scales.shape == (100,)
    assert fine.storage_bits == round_to_nearest(W, quant(bits=8, group_size=16)).storage_bits + 100 * 16


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_clipping_never_costs_within_groups_and_helps_where_bits_are_few(bits, symmetric):
    W, _, inputs = problem(outliers=False)
    settings = quant("clip", bits=bits, symmetric=symmetric)
    (shrink,) = search_clip(W, inputs.hessian, settings)
    assert shrink.shape == (24, 4) and shrink.min() >= 0.5 and shrink.max() <= 1

    def group_errors(weight) -> torch.Tensor:
        change = weight.dequantize() - W
        parts = [change[:, g : g + 32] @ inputs.hessian[g : g + 32, g : g + 32] for g in range(0, 100, 32)]
        return torch.stack([(p * change[:, 32 * i : 32 * i + 32]).sum(1) for i, p in enumerate(parts)], 1)

    plain, clipped = round_to_nearest(W, settings), round_to_nearest(W, settings, (shrink,))
    assert (group_errors(clipped) <= group_errors(plain) * (1 + 1e-4)).all()
    assert group_errors(clipped).sum() < (0.8, 0.95, 0.99)[bits - 2] * group_errors(plain).sum()


def test_layers_of_one_input_share_their_scales_and_keep_their_rows():
    W, _, inputs = problem(outliers=True)
    layers = {"q": W[:10], "k": W[10:]}
    found, _ = quantize_layers(layers, inputs, quant("scale", "clip"), "q, k")
    assert torch.equal(found["q"].input_scales, found["k"].input_scales)
    assert [tuple(found[name].dequantize().shape) for name in layers] == [(10, 100), (14, 100)]
    assert all((found[name].dequantize() - layers[name]).norm() < 0.5 * layers[name].norm() for name in layers)


def test_one_scale_a_tensor_is_one_for_each_layer():
    W, _, inputs = problem(outliers=False)
    gptq = Gptq(4, 0, True, backend="native", desc_act=False, damp_percent=0.01)
    found, _ = quantize_layers({"q": W[:10], "k": 5 * W[10:]}, inputs, gptq, "q, k")
    assert found["k"].scales.shape == (1, 1) and found["k"].scales > 3 * found["q"].scales


def test_with_one_scale_a_tensor_each_layer_is_searched_and_said_by_itself():
    W, _, inputs = problem(outliers=True)
    layers, settings = {"q": W[:10], "k": 0.1 * W[10:]}, quant("scale", group_size=0)
    layers["k"][:, [3, 50]] *= 20
    _, moved = quantize_layers(layers, inputs, settings, "q, k")
    alone = {name: quantize_layers({name: weight}, inputs, settings, name)[1]["scale"][name] for name, weight in layers.items()}
    assert moved["scale"] == alone and alone["k"] > 2 * alone["q"]
    errors = []  # of the two rounded each by itself, with scales in common: found for that, or for one matrix of both
    for weights in (list(layers.values()), [torch.cat(list(layers.values()))]):
        scales = search_scales(weights, inputs, settings)
        changes = [round_to_nearest(w * scales, settings).dequantize() / scales - w for w in layers.values()]
        errors.append(sum(((change @ inputs.hessian) * change).sum().item() for change in changes))
    assert errors[0] < 0.9 * errors[1]


def test_transforms_go_before_gptq_as_before_rounding():
    W, x, inputs = problem(outliers=True)
    base = {"bits": 3, "group_size": 32, "symmetric": True, "backend": "native", "desc_act": False, "damp_percent": 0.01}
    both = quantize_layers({"w": W}, inputs, Gptq(**base, transforms=["scale", "clip"]), "w")[0]["w"]
    awq = quantize_layers({"w": W}, inputs, quant("scale", "clip"), "w")[0]["w"]
    assert output_error(x, W, both) < output_error(x, W, awq)


@pytest.mark.parametrize(
    "settings", [quant("scale"), quant("clip"), Gptq(4, 32, True, backend="native", desc_act=False, damp_percent=0.01)]
)
def test_broken_inputs_name_the_layers(settings):
    W, _, inputs = problem(outliers=False)
    inputs.hessian[3, 3] = torch.nan
    with pytest.raises(UserError, match=r"inputs of layers\.0\.q, layers\.0\.k hold NaN"):
        quantize_layers({"q": W}, inputs, settings, "layers.0.q, layers.0.k")
