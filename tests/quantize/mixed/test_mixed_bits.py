"""Bits of their own for each layer: measured, chosen, applied, written as a recipe and used again."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext

import pytest
import torch
import yaml

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.number_formats import Activations
from bitsure.models.load import load_model
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.mixed import mixed_bits, sensitivities
from bitsure.quantize.mixed.mixed_bits import MixedBits
from bitsure.quantize.mixed.recipe import Recipe
from bitsure.quantize.mixed.sensitivities import measure_losses
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears, linears, matrix
from tests.builders.plans import plan
from tests.builders.quantizing import NATIVE, nothing

LAYERS = [f"model.decoder.layers.{k}.{name}" for k in (0, 1) for name in ("self_attn.k_proj", "self_attn.v_proj")]
LAYERS += [f"model.decoder.layers.{k}.{name}" for k in (0, 1) for name in ("self_attn.q_proj", "self_attn.out_proj")]
LAYERS += [f"model.decoder.layers.{k}.{name}" for k in (0, 1) for name in ("fc1", "fc2")]
RTN = Rtn(4, 32, True)
GPTQ = Gptq(**NATIVE | {"backend": "gptqmodel"})
LIKE = {"rtn": RTN, "awq": Rtn(4, 32, False, transforms=["scale", "clip"]), "gptq": GPTQ}


@pytest.fixture
def make(tiny_model, calib_file, tmp_path):
    def quantized(quant):
        planned = plan(tiny_model, quant, calib_file)
        check_plan(planned, Store(tmp_path / "store"))
        return ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")

    return quantized


@pytest.mark.parametrize("like", ["rtn", "gptq", pytest.param("awq", marks=pytest.mark.slow)])
def test_a_budget_is_kept_and_the_recipe_that_is_written_gives_the_same_weights_again(like, make, tmp_path):
    made = make(MixedBits(like=LIKE[like], bits_per_weight=3.9, candidates=[2, 4, 8]))
    assert 3.5 < made.proof.bits_per_weight <= 3.9
    recipe = Recipe.read(made.checkpoint / "recipe.yaml")
    weights, _ = read_checkpoint(made.checkpoint)
    assert {name: weight.bits for name, weight in weights.items()} == recipe.layers
    assert len(set(recipe.layers.values())) > 1 and set(recipe.layers) == set(LAYERS)
    own = {name: layer.bits_per_weight for name, layer in made.proof.layers.items()}
    assert {name: weight.storage_bits / weight.codes.numel() for name, weight in weights.items()} == pytest.approx(own)
    assert recipe.chosen["sum_of_kl_divergences"] < recipe.chosen["uniform"][2]["sum_of_kl_divergences"]
    again = make(MixedBits(like=LIKE[like], recipe=str(made.checkpoint / "recipe.yaml")))
    assert again.checkpoint != made.checkpoint
    for name, weight in read_checkpoint(again.checkpoint)[0].items():
        assert torch.equal(weight.dequantize(), weights[name].dequantize())


def test_another_budget_takes_what_was_measured_from_the_store(make, monkeypatch):
    make(MixedBits(like=RTN, bits_per_weight=3.5))
    monkeypatch.setattr(sensitivities, "measure_losses", None)
    assert make(MixedBits(like=RTN, bits_per_weight=5)).proof.bits_per_weight > 4


@pytest.mark.parametrize("like", [RTN, Gptq(**NATIVE)])
def test_losses_are_the_divergences_of_plain_passes_and_the_model_stays_as_it_is(like, tiny_model, tmp_path):
    model = load_model(tiny_model, "float32")[0]
    windows = torch.randint(3, 90, (6, 24), generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    candidates = {bits: like.with_bits(bits) for bits in (2, 8)}
    losses = measure_losses(model, candidates, windows, 100, tmp_path, nothing)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert set(losses) == set(LAYERS) and all(loss[8] < loss[2] / 4 for loss in losses.values())
    if not like.needs_data:
        layer = LAYERS[3]
        changed = copy.deepcopy(model)
        weight = matrix(block_linears(changed)[layer])
        weight.data.copy_(round_to_nearest(weight, candidates[2]).dequantize())
        with torch.inference_mode():
            p, q = (each(windows[[0, 1, 2, 3]]).logits[:, :-1].double().log_softmax(-1) for each in (model, changed))
        assert losses[layer][2] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)


def test_progress_begins_again_after_measuring_so_that_no_more_blocks_are_counted_than_there_are(make, monkeypatch):
    done, counts = 0, []

    def advance(n=1, total=None, note="", unit=""):
        nonlocal done
        done += n
        counts.append(done)

    monkeypatch.setattr("bitsure.quantize.make.progress", lambda description, total: nullcontext(advance))
    make(MixedBits(like=Gptq(**NATIVE), bits_per_weight=3.9, candidates=[2, 8]))
    assert max(counts) == counts[-1] == 2


def test_an_interrupted_measurement_goes_on(tiny_model, tmp_path, monkeypatch):
    model = load_model(tiny_model, "float32")[0]
    windows = torch.randint(3, 90, (6, 24), generator=torch.Generator().manual_seed(0))
    candidates = {bits: Gptq(**NATIVE).with_bits(bits) for bits in (2, 4)}
    expected = measure_losses(model, candidates, windows, 100, tmp_path / "whole", nothing)

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_losses(model, candidates, windows, 100, tmp_path / "parts", stop)
    monkeypatch.setattr(sensitivities, "quantize_layers", None)  # what was rounded is on disk
    assert measure_losses(model, candidates, windows, 100, tmp_path / "parts", nothing) == expected


def test_budgets_without_a_choice_and_settings_that_contradict_are_refused(make, tmp_path):
    for budget, expected in ((2.1, "takes 2.5"), (9, "takes 8.75")):
        with pytest.raises(UserError, match=expected) as error:
            make(MixedBits(like=Rtn(4, 32, False), bits_per_weight=budget, candidates=[2, 8]))
        assert f"quant.bits_per_weight={budget}" in str(error.value)
    for budget in (float("nan"), float("inf"), 0, -3):
        with pytest.raises(UserError, match="a finite number above 0"):
            MixedBits(like=RTN, bits_per_weight=budget)
    with pytest.raises(UserError, match="needs either quant"):
        MixedBits(like=RTN)
    with pytest.raises(UserError, match=r"quant.candidates=\[3, 3\]"):
        MixedBits(like=RTN, bits_per_weight=3, candidates=[3, 3])
    with pytest.raises(UserError, match="candidates=1"):
        MixedBits(like=RTN, bits_per_weight=3, candidates=[1, 4])
    for like in (Kept(activations=Activations(8)), Rtn(4, 32, True, activations=Activations(8)), Rtn(format="mxfp4")):
        with pytest.raises(UserError, match="mixed bits are those of integer weights alone"):
            MixedBits(like=like, bits_per_weight=3)


def test_a_recipe_of_another_model_is_refused_with_the_names(make, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"layers": {name: 4 for name in LAYERS[1:]} | {"model.layers.7.mlp.up_proj": 3}}))
    with pytest.raises(UserError) as error:
        make(MixedBits(like=RTN, recipe=str(file)))
    assert "names layers that tiny does not have: model.layers.7.mlp.up_proj" in str(error.value)
    assert f"lacks layers of tiny: {LAYERS[0]}" in str(error.value) and str(file) in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("layers: [", "cannot be read"),
        ("bits: 4", "needs `layers:`"),
        ("layers: {a: 4.5}", "a: 4.5: a layer's name and a whole number"),
        ("layers: {a: true}", "a: True"),
        ("layers: {a: 9}", "a=9"),
        ("layers: {a: 4}\ngrid: [128]", r"grid: \[128\]: needs lines such as"),
        ("layers: {a: 4}\ngrid: {symetric: true}", "symetric.*needs lines such as"),
        ("layers: {a: 4}\ngrid: {group_size: '128'}", "'128'.*needs lines such as"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content, expected, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=expected):
        MixedBits(like=RTN, recipe=str(file))
    with pytest.raises(UserError, match="cannot be read"):
        MixedBits(like=RTN, recipe=str(tmp_path / "none.yaml"))


def test_a_padded_vocabulary_loses_nothing_and_what_is_not_finite_is_refused(tiny_model):
    full = torch.randn(4, 9)
    full[:, 7:] = -torch.inf
    assert sum(sensitivities._kl_divergences(full, full)) == 0
    model = load_model(tiny_model, "float32")[0]
    name, layers = next((name, layers) for name, layers in model.named_modules() if name.endswith("layers.0"))
    weights = {f"{name}.{layer}": round_to_nearest(matrix(part), Rtn(2, 32, True)) for layer, part in linears(layers).items()}
    with torch.no_grad(), pytest.raises(UserError, match="in 2 bits gives probabilities that are not finite"):
        sensitivities._losses_of_block(name, layers, {2: weights}, lambda: float("nan"))


def test_a_bound_that_a_refusal_names_is_accepted():
    assert mixed_bits._rounded(3.14815, math.ceil) == 3.149 and mixed_bits._rounded(3.14815, math.floor) == 3.148
    assert mixed_bits._rounded(2.5, math.ceil) == 2.5


def test_a_recipe_says_what_it_was_chosen_for_and_is_refused_for_another_grid(make, tmp_path):
    made = make(MixedBits(like=GPTQ, bits_per_weight=3.9, candidates=[2, 4, 8]))
    file = made.checkpoint / "recipe.yaml"
    recipe = Recipe.read(file)
    assert recipe.grid == {"group_size": GPTQ.group_size, "symmetric": GPTQ.symmetric, "remainder": "shorten"}
    assert recipe.chosen["calibration"].keys() == {"name", "nsamples", "seqlen", "seed"}
    assert recipe.chosen["dtype"] == "float32" and recipe.chosen["rounding"]["method"] == "gptq"
    MixedBits(like=Rtn(4, GPTQ.group_size, GPTQ.symmetric), recipe=str(file))  # rounded to nearest on the same grid
    with pytest.raises(UserError, match=r"was chosen for symmetric=\w+, .*Give quant\.like\.symmetric=\w+, or remove `grid`"):
        MixedBits(like=Rtn(4, GPTQ.group_size, not GPTQ.symmetric), recipe=str(file))
    content = yaml.safe_load(file.read_text())
    content.pop("grid")
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content))
    again = make(MixedBits(like=Rtn(4, GPTQ.group_size, not GPTQ.symmetric), recipe=str(tmp_path / "edited.yaml")))
    assert Recipe.read(again.checkpoint / "recipe.yaml").grid == recipe.grid | {"symmetric": not GPTQ.symmetric}
