"""A pass that begins at a later block gives what a whole pass gives, and computes no block before it."""

from __future__ import annotations

import pytest
import torch

from bitsure.quantize.walk.block_outputs import BlockOutputs
from bitsure.quantize.walk.targets import find_blocks, linears
from tests.builders.families import build
from tests.builders.quantizing import ALL, WINDOWS


@pytest.mark.parametrize("family", ALL)
@torch.inference_mode()
def test_a_pass_from_a_later_block_gives_the_logits_of_a_whole_one(family):
    model = build(family, **ALL[family])
    blocks = find_blocks(model)[1]
    ran = []
    for number, block in enumerate(blocks):
        next(iter(linears(block).values())).register_forward_hook(lambda *_, number=number: ran.append(number))
    outputs = BlockOutputs(blocks)
    with outputs.kept():
        expected = model(input_ids=WINDOWS, use_cache=False).logits
    for first in range(len(blocks) + 1):
        ran.clear()
        with outputs.begin_at(first):
            logits = model(input_ids=WINDOWS, use_cache=False).logits
        assert torch.equal(logits, expected)
        assert ran == list(range(first, len(blocks)))
    assert torch.equal(model(input_ids=WINDOWS, use_cache=False).logits, expected)
