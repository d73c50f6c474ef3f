"""Models that accelerate spreads over memory and disk: the same numbers as in memory, quantized ones too."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.schema import ModelSettings
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.native import cast as casts
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.families import FAMILIES, build
from tests.builders.tokenizers import byte_tokenizer

REQUESTS = [(list(range(5, 40)), [7 + i, 9, 11]) for i in range(4)] + [(list(range(60, 80)), [3, 4])]


@pytest.fixture(params=["opt", "llama", "gpt2", "bloom"])
def model(request, tmp_path):
    """A directory, and settings that leave memory for less than the model."""
    built = build(request.param, **FAMILIES[request.param])
    built.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    size = sum(parameter.numel() * 4 for parameter in built.parameters())
    allowed = ModelSettings(path=str(tmp_path), device_map="auto", max_memory=[f"cpu:{size * 6 // 10 // 1000}KB"])
    return tmp_path, allowed


def on_disk(network) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.is_meta]


def test_a_model_larger_than_its_memory_scores_as_in_memory(model):
    path, allowed = model
    whole, spread = load_model(path, "float32")[0], load_model(path, "float32", settings=allowed)[0]
    assert "disk" in spread.hf_device_map.values() and on_disk(spread) and not on_disk(whole)
    for share in (True, False):
        expected, found = (LocalEngine(network, 256, share).score(REQUESTS) for network in (whole, spread))
        assert found == expected
    assert on_disk(spread), "weights stayed in memory after they were used"


@pytest.mark.parametrize("kind", ["rounded", "cast"])
def test_a_quantized_model_larger_than_its_memory_scores_as_in_memory(model, kind, tmp_path):
    path, allowed = model
    whole, spread = load_model(path, "float32")[0], load_model(path, "float32", settings=allowed)[0]
    out = tmp_path / "checkpoint"
    out.mkdir()
    plain = LocalEngine(whole, 256).score(REQUESTS)
    if kind == "rounded":
        layers = block_linears(whole).items()
        write_checkpoint(out, {name: round_to_nearest(matrix(layer), Rtn(3, 32, True)) for name, layer in layers})
    else:  # changes embeddings and norms too
        write_checkpoint(out, *casts.cast(whole, Cast("bfloat16")))
    kept_on_disk = on_disk(spread)
    rounding = {network: put_into(network, out) for network in (whole, spread)}
    expected, found = (LocalEngine(network, 256, True, hooks).score(REQUESTS) for network, hooks in rounding.items())
    assert found == expected != plain and on_disk(spread) == kept_on_disk


def test_bin_weights_are_spread_over_the_disk_too(tiny_model, tmp_path):
    whole, tokenizer = load_model(tiny_model, "float32")
    tokenizer.save_pretrained(tmp_path)
    whole.config.save_pretrained(tmp_path)
    torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
    allowed = ModelSettings(path=str(tmp_path), device_map="sequential", max_memory=["cpu:300KB"])
    spread, _ = load_model(tmp_path, "float32", settings=allowed)
    assert on_disk(spread)
    expected, found = (LocalEngine(network, 256).score(REQUESTS) for network in (whole, spread))
    assert found == expected


def test_what_breaks_is_found_in_a_spread_model_too(model):
    path, allowed = model
    spread, _ = load_model(path, "float32", settings=allowed)
    assert first_broken_module(spread, [5, 6, 7]) is None


def test_a_model_that_cannot_fit_is_refused_with_the_way_out(tiny_model):
    huge = ModelSettings(path=str(tiny_model), parameters=10**15)
    with pytest.raises(UserError, match=r"1,000,000,000,000,000 parameters in float32 .* model\.device_map=auto"):
        load_model(tiny_model, "float32", settings=huge)
