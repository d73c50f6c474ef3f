"""A model on disk is scored block by block: the numbers of memory, and each block read once for many batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from accelerate.utils import OffloadedWeightsLoader

from bitsure.models.load import empty_model, load_model
from bitsure.models.offloading import blocks_on_disk, weights_in_memory
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import batch_runner
from bitsure.scoring.local.batch_runner import BatchRunner
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.offloaded_batches import bring_blocks_once
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.tokenized_text import TextWindow
from tests.builders.families import FAMILIES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.tokenizers import byte_tokenizer

REQUESTS = [([5 + i, 6, 7, 8 + i], [9, 10 + i]) for i in range(20)]
BATCHES = Limits(6, 6)  # one input in each
pytestmark = needs_transformers_5


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("on-disk")
    build("llama", **FAMILIES["llama"]).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path, {**blocks_on_disk(empty_model(path), "model.layers"), "lm_head": "disk", "model.embed_tokens": "disk"}


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the weights that are read from disk, as often as they are."""
    names: list[str] = []
    read = OffloadedWeightsLoader.__getitem__
    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", lambda loader, name: names.append(name) or read(loader, name))
    return names


def score(path, places, share=True):
    """Score in batches of one input each."""
    engine = LocalEngine(load_model(path, "float32", places=places)[0], 64, share)
    engine.limits = lambda: BATCHES
    return engine.score(REQUESTS, journal=Journal())


@pytest.mark.parametrize("share", [True, False])
def test_twenty_batches_read_each_block_as_often_as_one(on_disk, monkeypatch, reads, share):
    begun: list[int] = []
    run = BatchRunner.run

    def watched(runner, *args):
        begun.append(len(reads))
        yield from run(runner, *args)

    monkeypatch.setattr(BatchRunner, "run", watched)
    path, places = on_disk
    found = score(path, places, share)
    counts = Counter(reads[begun[-1] :])
    assert set(counts.values()) == {2}  # 16 batches and 4
    assert {name.partition("layers.")[2][:1] for name in counts} == {"", "0", "1"}
    assert found == score(path, {"": "cpu"}, share)


def test_a_text_reads_each_block_once_a_batch_of_windows(on_disk, monkeypatch, reads):
    path, places = on_disk
    few = np.zeros(7, np.int64)  # which document, where in it, and how many bytes: not read here
    windows = [TextWindow(np.array([5 + i, *range(6, 13)]), 1, few, few, few) for i in range(12)]
    model = TextModel(load_model(path, "float32", places=places)[0])
    monkeypatch.setattr(model, "_most_tokens", 32)
    reads.clear()
    batches = [windows[start : start + 4] for start in (0, 4, 8)]
    assert [len(model.next_batch(windows[start:])) for start in (0, 4, 8)] == [4, 4, 4]
    for batch in batches:
        assert len(model.states(batch)) == 4 * 7
    counts = Counter(name for name in reads if "layers." in name)
    assert set(counts.values()) == {len(batches)}
    assert {name.partition("layers.")[2][:1] for name in counts} == {"0", "1"}


def test_batches_that_do_not_fit_together_are_brought_for_in_smaller_numbers(on_disk, monkeypatch):
    sizes: list[int] = []

    def of_little_memory(model, run, batches, requests):
        sizes.append(len(batches))
        if len(batches) > 10:
            raise MemoryError
        return bring_blocks_once(model, run, batches, requests)

    monkeypatch.setattr(batch_runner, "bring_blocks_once", of_little_memory)
    path, places = on_disk
    assert score(path, places) == score(path, {"": "cpu"})
    assert sizes[-4:] == [19, 9, 9, 2]  # of 5 tokens each: at first 96 at once


def test_weights_are_dropped_where_those_of_another_layer_cannot_be(on_disk, monkeypatch):
    path, places = on_disk
    block = load_model(path, "float32", places=places)[0].model.layers[1]
    for layer in (block.mlp.gate_proj, block.mlp.down_proj):
        monkeypatch.setattr(layer._hf_hook, "post_forward", lambda *given: {}["lost"])
    with pytest.raises(KeyError), weights_in_memory(block):
        pass
    assert block.mlp.up_proj.weight.is_meta and block.self_attn.q_proj.weight.is_meta


def test_modules_compute_with_what_is_in_memory_and_bring_it_again_afterwards(on_disk):
    path, places = on_disk
    model, _ = load_model(path, "float32", places=places)
    block = model.model.layers[1]
    with weights_in_memory(block):
        assert not block.mlp.up_proj.weight.is_meta and model.model.layers[0].mlp.up_proj.weight.is_meta
        block.mlp.up_proj.weight.data.zero_()
    assert block.mlp.up_proj.weight.is_meta
    with weights_in_memory(block):
        assert block.mlp.up_proj.weight.any()
