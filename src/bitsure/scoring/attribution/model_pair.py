"""A model in full precision and quantized, whose parts can be exchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.hooks import attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.block_outputs import BlockOutputs
from bitsure.quantize.walk.mixtures import without_number
from bitsure.quantize.walk.targets import find_blocks, linears
from bitsure.results.attribution import PartKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEYS_AND_VALUES, OUTSIDE = "keys and values", "outside the blocks"


@dataclass(frozen=True)
class ModelPart:
    """Modules that are quantized, or restored, together."""

    kind: PartKind
    """A block, layers of one type in all blocks, a layer, or something else."""
    name: str
    """The block's or the layer's name in the model, the type's name, `keys and values`, or `outside the blocks`."""
    blocks: tuple[int, ...] = ()
    """Blocks that are exchanged whole."""
    layers: tuple[tuple[int, str], ...] = ()
    """Block and name in it of layers that are exchanged, after the blocks."""
    first: int = 0
    """The first block whose output the part may change."""

    @property
    def key(self) -> str:
        """What the measurements call it."""
        return f"{self.kind}: {self.name}"


class ModelPair:
    """A model in full precision and quantized. Both change where a part is exchanged: one gets what the other had.

    Args:
        full: The model in full precision, mixtures' experts one by one. Rotations and folded divisions of the checkpoint are
            applied to it, which leaves its function as it is, so that each layer fits into both models.
        quantized: The quantized model, with its hooks, likewise.
        checkpoint: What made it.
    """

    def __init__(self, full: PreTrainedModel, quantized: PreTrainedModel, checkpoint: CheckpointContents) -> None:
        self.full, self.quantized = full, quantized
        rotations = checkpoint.scheme.rotations
        rotations.apply(full)
        if rotations.inputs:
            attach(full, InferenceScheme(rotations=rotations))
        for division in checkpoint.scheme.divisions:
            if division.source is not None:
                division.apply(full.get_submodule)
        self._blocks = find_blocks(full)[1], find_blocks(quantized)[1]
        self.full_outputs, self.quantized_outputs = map(BlockOutputs, self._blocks)
        self.parts = _parts(full, quantized, checkpoint)
        """Parts that are both quantized and restored alone."""
        self.layers = _layers(full)
        """Single layers, which are quantized alone; a block's experts are quantized together."""

    @property
    def n_blocks(self) -> int:
        """The number of blocks."""
        return len(self._blocks[0])

    @property
    def block_parameters(self) -> int:
        """The number of parameters in all blocks."""
        return sum(parameter.numel() for parameter in self._blocks[0].parameters())

    def names_of_layers(self, part: ModelPart) -> list[str]:
        """Return the full names of a part's layers."""
        prefix = find_blocks(self.full)[0]
        return [f"{prefix}.{number}.{name}" for number, name in part.layers]

    def places_of_layers(self) -> dict[str, tuple[str, str]]:
        """Return layer → its block and its type."""
        prefix = find_blocks(self.full)[0]
        inside = {layer.name: layer.layers[0] for layer in self.layers}
        types = layer_types(name for _, name in inside.values())
        return {layer: (f"{prefix}.{number}", types[name]) for layer, (number, name) in inside.items()}

    @contextmanager
    def exchanged(self, part: ModelPart) -> Iterator[tuple[PreTrainedModel, PreTrainedModel]]:
        """Exchange a part within the `with` block.

        Yields:
            The model of which the part alone is quantized, and the quantized model of which the part alone is not.
        """
        self._exchange(part)
        try:
            # With all blocks exchanged, what is left of the quantized model is what it has outside of them.
            yield (self.quantized, self.full) if part.name == OUTSIDE else (self.full, self.quantized)
        finally:
            self._exchange(part)

    def _exchange(self, part: ModelPart) -> None:
        first, second = self._blocks
        for number in part.blocks:
            first[number], second[number] = second[number], first[number]
        for number, name in part.layers:
            above, _, own = name.rpartition(".")
            places = [blocks[number].get_submodule(above) for blocks in self._blocks]
            layers = [getattr(place, own) for place in places]
            for place, layer in zip(places, reversed(layers), strict=True):
                setattr(place, own, layer)


def layer_types(names: Iterable[str]) -> dict[str, str]:
    """Return the type of each layer of a block: the end of its name, as long as tells it apart; experts have one type.

    Args:
        names: The layers' names in their block, such as `self_attn.q_proj`.
    """
    of_experts = {name: without_number(name) for name in names}
    ends = Counter(_end(name) for name in set(of_experts.values()))
    return {name: _end(whole) if ends[_end(whole)] == 1 else whole for name, whole in of_experts.items()}


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def _layers(model: nn.Module) -> list[ModelPart]:
    """Return the layers of each block; the experts' layers of one kind are one part."""
    prefix, blocks = find_blocks(model)
    members: dict[str, list[tuple[int, str]]] = {}
    for number, block in enumerate(blocks):
        for name in linears(block):
            members.setdefault(f"{prefix}.{number}.{without_number(name)}", []).append((number, name))
    return [ModelPart("layer", name, layers=tuple(layers), first=layers[0][0]) for name, layers in members.items()]


def _parts(full: PreTrainedModel, quantized: PreTrainedModel, checkpoint: CheckpointContents) -> list[ModelPart]:
    prefix, blocks = find_blocks(full)
    every = tuple((number, name) for number, block in enumerate(blocks) for name in linears(block))
    types = layer_types(name for _, name in every)
    of_type: dict[str, list[tuple[int, str]]] = {}
    for number, name in every:
        of_type.setdefault(types[name], []).append((number, name))
    parts = [ModelPart("block", f"{prefix}.{number}", blocks=(number,), first=number) for number in range(len(blocks))]
    parts += [ModelPart("type", name, layers=tuple(layers), first=layers[0][0]) for name, layers in of_type.items()]
    numbers = tuple(range(len(blocks)))
    if checkpoint.scheme.kv is not None:
        parts.append(ModelPart("other", KEYS_AND_VALUES, blocks=numbers, layers=every))
    if _differ_outside(full, quantized, prefix):
        parts.append(ModelPart("other", OUTSIDE, blocks=numbers))
    return parts


def _differ_outside(full: PreTrainedModel, quantized: PreTrainedModel, prefix: str) -> bool:
    """Return whether embeddings, norms or the head were rounded too."""
    other = quantized.state_dict()
    return any(
        not torch.equal(tensor, other[name]) for name, tensor in full.state_dict().items() if not name.startswith(f"{prefix}.")
    )
