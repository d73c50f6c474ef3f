"""Outlier channels for models that have none: the function stays, what rounded activations make of it does not.

Large language models have channels of activations far above the others (Dettmers et al. 2022); small ones may have none.
"""

from __future__ import annotations

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.divisions import Division, find_sources
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.layer_inputs import layers_by_input
from bitsure.quantize.walk.targets import LINEAR


@torch.no_grad()
def inject(model: nn.Module, windows: torch.Tensor, strength: float, every: int, seed: int = 0) -> list[str]:
    """Multiply some channels of what the norms of the blocks give by `strength`, and divide the weights that read them.

    One in `every` channels of each norm, drawn with `seed`. A power of two as strength leaves the function the same to the
    last bit, but for what sums do. windows: (n, seqlen) token ids to find out by which norm goes where. Returns the norms.
    Raises UserError if there is none that linear layers alone read.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = []
    for prefix, block, feed in walk(model, windows):
        groups = layers_by_input(block, feed)
        sources = find_sources(block, groups, lambda feed=feed: feed.run(feed.batches[0]))
        for group, (source, multiplies_by) in zip(groups, sources, strict=True):
            if source is None or isinstance(block.get_submodule(source), LINEAR):
                continue
            width = block.get_submodule(source).weight.numel()
            chosen = torch.randperm(width, generator=generator)[: max(1, width // every)]
            scales = torch.ones(width).index_fill_(0, chosen, 1 / strength)
            Division(list(group), scales, source, multiplies_by).apply(block.get_submodule)
            norms.append(f"{prefix}.{source}")
    if not norms:
        raise UserError("No norm in the model's blocks is read by linear layers alone: there is nowhere to put outliers.")
    return norms
