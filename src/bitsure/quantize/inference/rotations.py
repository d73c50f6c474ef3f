"""The rotations of a checkpoint: the matrices, and the modules that they change.

The residual stream is rotated by R1: what is added to it is written rotated, and its readers take the rotation back. The norms
between have to treat all channels alike: their weights go into their readers. Where norms subtract the mean, writers write
rows of mean 0 and R1 leaves the vector of ones as it is, so that the mean stays 0 and the subtraction changes nothing.
Values are rotated by R2, head by head, and the projection after attention takes that back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import nn

from bitsure.quantize.inference.divisions import OFFSET
from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.walk.targets import matrix, parameter

ROWS = 256  # of a matrix that are rotated in float64 at once: a CPU keeps them in its cache


class FoldedRotation(ABC):
    """A rotation that weights take up."""

    kind: ClassVar[str]
    """What `quant.rotation.kinds` calls it."""

    rotation: Orthogonal

    @property
    def online_layers(self) -> list[str]:
        """The layers whose inputs are rotated while the model runs."""
        return []

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Rotate a full-precision model's weights, in float64."""

    @abstractmethod
    def within(self, modules: Container[str]) -> Self | None:
        """Return the part of it that is about these modules, by name; None if there is none."""


@dataclass(frozen=True)
class StreamNorm:
    """A norm between the residual stream and linear layers."""

    name: str
    factor: str
    """What it multiplies by, `divisions.SCALE` or `divisions.OFFSET`."""
    readers: list[str]
    """The linear layers that read it, and nothing else does."""


@dataclass(frozen=True)
class StreamRotation(FoldedRotation):
    """R1: the residual stream."""

    kind: ClassVar[str] = "r1"

    rotation: Orthogonal
    embeddings: list[str]
    norms: list[StreamNorm]
    writers: list[str]
    """The linear layers whose outputs are added to the stream."""
    centred: bool
    """Whether the norms subtract the mean."""

    def apply(self, model: nn.Module) -> None:
        """Rotate a model's residual stream, its head untied from the embedding."""
        _untie(model)
        for norm in self.norms:
            self._fold(model, norm)
        for name in self.embeddings:
            weight = parameter(model.get_submodule(name), "weight")
            _in_rows(weight, self._written)
        for name in self.writers:
            layer = model.get_submodule(name)
            _in_rows(matrix(layer).T, self._written)
            if getattr(layer, "bias", None) is not None:
                _in_rows(parameter(layer, "bias")[None], self._written)

    def within(self, modules: Container[str]) -> Self:
        """Leave out other modules."""
        norms = [norm for norm in self.norms if norm.name in modules]
        return replace(self, norms=norms, writers=[name for name in self.writers if name in modules])

    def _written(self, rows: torch.Tensor) -> torch.Tensor:
        return self.rotation(rows - rows.mean(-1, keepdim=True) if self.centred else rows)

    def _fold(self, model: nn.Module, norm: StreamNorm) -> None:
        """Move a norm's weight and bias into its readers, which read the rotated stream from then on.

        The norm keeps a bias, rotated, if a reader has none that could take it up and no weight of the norm is 0.
        """
        module: Any = model.get_submodule(norm.name)
        readers: list[Any] = [model.get_submodule(name) for name in norm.readers]
        gain = module.weight.double() + (1 if norm.factor == OFFSET else 0)
        bias = getattr(module, "bias", None)
        keeps_bias = any(getattr(layer, "bias", None) is None for layer in readers) and bool(gain.all())
        for layer in readers:
            if bias is not None and not keeps_bias:
                added = matrix(layer).double() @ bias.double()
                own = 0 if layer.bias is None else layer.bias.double()
                layer.bias = nn.Parameter((own + added).to(layer.weight.dtype), requires_grad=False)
            _in_rows(matrix(layer), lambda rows: self.rotation(rows * gain))
        module.weight.fill_(0.0 if norm.factor == OFFSET else 1.0)
        if bias is not None:
            bias.copy_(self.rotation(bias.double() / gain) if keeps_bias else torch.zeros_like(bias))


@dataclass(frozen=True)
class ValueRotation(FoldedRotation):
    """R2: the values of one block's attention, every head by the same matrix."""

    kind: ClassVar[str] = "r2"

    rotation: Orthogonal
    source: str
    """The linear layer that computes values."""
    rows: torch.Tensor
    """Its rows that do, (heads, width of a head) int64."""
    reader: str
    """The linear layer that reads what attention makes of them."""

    def apply(self, model: nn.Module) -> None:
        """Rotate the values, and their reader back."""
        source, reader = model.get_submodule(self.source), model.get_submodule(self.reader)
        for rows in self.rows:
            values = matrix(source)[rows].double()
            matrix(source)[rows] = self.rotation(values.T).T.to(matrix(source).dtype)
            if getattr(source, "bias", None) is not None:
                bias = parameter(source, "bias")
                bias[rows] = self.rotation(bias[rows].double()).to(bias.dtype)
        heads = (-1, matrix(reader).shape[1] // self.rotation.width, self.rotation.width)
        _in_rows(matrix(reader), lambda part: self.rotation(part.reshape(heads)).flatten(-2))

    def within(self, modules: Container[str]) -> Self | None:
        """Return itself, or None."""
        return self if self.source in modules else None


@dataclass(frozen=True)
class InputRotation(FoldedRotation):
    """R4: the inputs of layers of one width, rotated while the model runs."""

    kind: ClassVar[str] = "r4"

    rotation: Orthogonal
    layers: list[str]

    @property
    def online_layers(self) -> list[str]:
        """All its layers."""
        return self.layers

    def apply(self, model: nn.Module) -> None:
        """Let the layers' weights expect rotated inputs; rotating those is left to the layers' hooks."""
        for name in self.layers:
            _in_rows(matrix(model.get_submodule(name)), self.rotation)

    def within(self, modules: Container[str]) -> Self:
        """Leave out other layers."""
        return replace(self, layers=[name for name in self.layers if name in modules])


@dataclass(frozen=True)
class Rotations:
    """All rotations of a model."""

    stream: StreamRotation | None = None
    values: list[ValueRotation] = field(default_factory=list)
    inputs: list[InputRotation] = field(default_factory=list)
    keys_and_values: Orthogonal | None = None
    """R3: rotates keys (after their rotary embedding) and values of a head before they are rounded, and back after that, which
    is as if queries and attention's outputs were rotated too."""

    def __bool__(self) -> bool:
        """Return whether anything is rotated."""
        return bool(self.folded) or self.keys_and_values is not None

    learned_loss: list[float] | None = None
    """Where R1 and R2 were learned: the loss on calibration text before and after, nats a token."""

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Rotate a full-precision model's weights, in float64; what acts while it runs is left to its hooks."""
        for part in self.folded:
            part.apply(model)

    @property
    def folded(self) -> list[FoldedRotation]:
        """The rotations that change weights, in the order in which they are made."""
        return [*([self.stream] if self.stream else []), *self.values, *self.inputs]

    @property
    def names(self) -> dict[str, str]:
        """Kind, and of R4 the width → the matrix and where it is applied."""
        names: dict[str, str] = {}
        for part in self.folded:
            online = f" {part.rotation.width}" if part.online_layers else ""
            names[f"{part.kind}{online}"] = f"{part.rotation.name}, {'while the model runs' if online else 'in weights'}"
        if self.keys_and_values is not None:
            names["r3"] = f"{self.keys_and_values.name}, while the model runs"
        return names

    def input_rotation(self, layer: str) -> Orthogonal | None:
        """Return what rotates a layer's input while the model runs; None if nothing does."""
        return next((each.rotation for each in self.inputs if layer in each.layers), None)


def _untie(model: Any) -> None:
    """Give the head a weight of its own: norms are folded into the head, and not into the embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _in_rows(rows: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the rows of a matrix, a view of a parameter, by what `change` makes of them in float64."""
    for part in torch.split(rows, ROWS):
        part.copy_(change(part.double()))
