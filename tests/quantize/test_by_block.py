"""Quantizing a model whose blocks stay on disk: the same bytes as in memory, one block at a time."""

from __future__ import annotations

import weakref
from collections import Counter

import pytest
import torch
from accelerate.utils import OffloadedWeightsLoader

from benchmarks.tiny_models import build_small
from bitsure.base.store import Store
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.plan import Plan
from tests.builders.families import FAMILIES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.plans import plan
from tests.builders.tokenizers import byte_tokenizer

QUANTIZERS = {
    "rtn": Rtn(3, 32, True),
    "gptq": Gptq(bits=3, group_size=32, symmetric=True, backend="native", desc_act=False, damp_percent=0.01),
    "awq": Rtn(4, 32, False, transforms=["scale", "clip"]),
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A small Llama in several files, its head tied to its embedding."""
    path = tmp_path_factory.mktemp("sharded")
    build("llama", **{**FAMILIES["llama"], "tie_word_embeddings": True}).save_pretrained(path, max_shard_size="100KB")
    byte_tokenizer().save_pretrained(path)
    assert len(list(path.glob("*.safetensors"))) > 1
    return path


@needs_transformers_5
@pytest.mark.parametrize("name", ["gptq", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rtn", "awq"))])
def test_blocks_from_disk_give_the_bytes_of_a_model_in_memory(sharded, calib_file, tmp_path, monkeypatch, name):
    planned = plan(sharded, QUANTIZERS[name], calib_file)
    on_disk = ensure_quantized(planned, Store(tmp_path / "disk"), tmp_path / "log")
    monkeypatch.setattr(Plan, "places", lambda self, modules: None)
    whole = ensure_quantized(planned, Store(tmp_path / "memory"), tmp_path / "log")
    for file in ("model.safetensors", "quantize_config.json"):
        assert (on_disk.checkpoint / file).read_bytes() == (whole.checkpoint / file).read_bytes()
    costs = {"seconds": 0.0, "peak_memory_bytes": None}
    assert on_disk.proof.model_copy(update=costs) == whole.proof.model_copy(update=costs)


@needs_transformers_5
@pytest.mark.parametrize("family", ["bamba", "cpmant", "doge"])
def test_blocks_that_read_weights_outside_of_layers_are_quantized_from_disk(family, calib_file, tmp_path):
    """Bamba's code has accelerate bring and drop its convolution's weights; CPM-Ant's first weights are its
    blocks'; Doge's blocks have weights of their own."""
    build_small(family).save_pretrained(tmp_path / family)
    byte_tokenizer().save_pretrained(tmp_path / family)
    planned = plan(tmp_path / family, QUANTIZERS["rtn"], calib_file)
    assert ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log").proof.modules_quantized


@needs_transformers_5
def test_the_weights_of_one_block_are_in_memory_and_read_once_a_pass(sharded, calib_file, tmp_path, monkeypatch):
    """Passes: to see what blocks return (the first two, twice), to quantize, to compare weights, to compare outputs."""
    reads: Counter[str] = Counter()
    alive: list[tuple[str, weakref.ref[torch.Tensor]]] = []
    read = OffloadedWeightsLoader.__getitem__

    def watched(loader, name):
        block = name.partition("layers.")[2].partition(".")[0]
        others = {other for other, tensor in alive if other != block and tensor() is not None}
        assert not others, f"block {block} is read while {others} are in memory"
        tensor = read(loader, name)
        reads[name] += 1
        alive.append((block, weakref.ref(tensor)))
        return tensor

    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", watched)
    ensure_quantized(plan(sharded, QUANTIZERS["gptq"], calib_file), Store(tmp_path / "store"), tmp_path / "log")
    assert reads and max(reads.values()) <= 5
