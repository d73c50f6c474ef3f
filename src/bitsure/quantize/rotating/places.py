"""Finding where rotations fit into a model: which layers read and write its residual stream, and where values come from.

One small pass is followed from tensor to tensor, so that no class of models is known by name. It needs shapes alone, so that
what rules a rotation out is known before weights are loaded.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.inference.divisions import multiplies_by
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.keys_values import KeysAndValues
from bitsure.quantize.inference.orthogonal import Orthogonal, random_hadamard
from bitsure.quantize.inference.rotations import InputRotation, Rotations, StreamNorm, StreamRotation, ValueRotation
from bitsure.quantize.walk.targets import block_linears, find_blocks, is_linear, matrix, parameter

TOKENS = 8  # of the pass that is followed


@dataclass(frozen=True)
class _Call:
    """A module with weights that ran."""

    name: str
    module: nn.Module
    read: torch.Tensor
    """Its first argument; tensors are kept, so that no other takes their memory."""
    output: torch.Tensor


@dataclass
class _Trace:
    """One pass through a model."""

    calls: list[_Call] = field(default_factory=list)
    """In their order."""
    attention: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Block → how many calls there were before its attention, its keys and its values."""


@torch.no_grad()
def find_rotations(model: nn.Module, settings: RotationSettings) -> Rotations:
    """Return the rotations of a model, random ones.

    Args:
        model: The model, with or without weights (on the meta device).
        settings: Which rotations, and the seed.

    Raises:
        UserError: If the model has no place for one of them.
    """
    trace, draw = _follow(model, bool({"r2", "r3"} & set(settings.kinds))), _drawing(settings.seed)
    stream = _stream(model, trace, draw) if "r1" in settings.kinds else None
    values = [_values(trace, block, draw) for block in trace.attention] if "r2" in settings.kinds else []
    rotated = {name for norm in stream.norms for name in norm.readers} if stream else set()
    rest = [name for name in block_linears(model) if name not in rotated | {each.reader for each in values}]
    inputs = _inputs(model, rest, draw) if "r4" in settings.kinds else []
    keys_and_values = draw("r3", _head_width(trace)) if "r3" in settings.kinds else None
    return Rotations(stream, values, inputs, keys_and_values)


def _drawing(seed: int) -> Callable[[str, int], Orthogonal]:
    def draw(name: str, width: int) -> Orthogonal:
        return random_hadamard(width, torch.Generator().manual_seed(seed + zlib.crc32(name.encode())))

    return draw


def _follow(model: Any, with_attention: bool) -> _Trace:
    """Run a few tokens through a model and record which tensors its modules read and gave, keys and values among them."""
    trace = _Trace()

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            read = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
            if read is not None and isinstance(output, torch.Tensor):
                trace.calls.append(_Call(name, module, read, output))

        return hook

    def watch_attention(name: str) -> Callable[[torch.Tensor, torch.Tensor], KeysAndValues]:
        def change(keys: torch.Tensor, values: torch.Tensor) -> KeysAndValues:
            trace.attention[name] = len(trace.calls), keys, values
            return keys, values

        return change

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                stack.callback(module.register_forward_hook(watch(name), with_kwargs=True).remove)
        prefix, blocks = find_blocks(model)
        for number, block in enumerate(blocks) if with_attention else ():
            change = watch_attention(f"{prefix}.{number}")
            stack.callback(InferenceRounding().on_keys_and_values(block, change).remove)
        ids = torch.zeros(1, TOKENS, dtype=torch.long, device=next(model.parameters()).device)
        try:
            model(input_ids=ids, use_cache=True)
        except RuntimeError as error:
            raise _refused(model, f"its tensors cannot be followed without weights ({error})") from error
    return trace


def _refused(model: nn.Module, reason: str) -> UserError:
    return UserError(f"quant.transforms=[rotate]: {type(model).__name__} cannot be rotated: {reason}.")


def _stream(model: Any, trace: _Trace, draw: Callable[[str, int], Orthogonal]) -> StreamRotation:
    width = parameter(model.get_input_embeddings(), "weight").shape[1]
    norms: list[StreamNorm] = []
    centred: set[bool] = set()
    for call in trace.calls:
        if is_linear(call.module) or isinstance(call.module, nn.Embedding) or _weight_shape(call.module) != (width,):
            continue
        readers = [other for other in trace.calls if _same_memory(other.read, call.output)]
        strange = [other.name for other in readers if not is_linear(other.module)]
        if strange or not readers:
            why = f"read by {strange[0]}, which is no linear layer" if strange else "read by no linear layer"
            raise _refused(
                model,
                f"{call.name}, a norm with a weight for each channel, is {why}, so that r1 cannot be folded. "
                "quant.rotation.kinds=[r2,r4] leaves the residual stream as it is",
            )
        probe = _with_random_weights(call.module)
        factor = multiplies_by(probe, width)
        if factor is None:
            raise _refused(model, f"{call.name} multiplies by another function of its weight than w or 1 + w")
        centred.add(_subtracts_mean(probe, width))
        norms.append(StreamNorm(call.name, factor, [other.name for other in readers]))
    if not norms:
        raise _refused(model, f"no norm is as wide as its embeddings ({width}), so that they are projected in between")
    if len(centred) > 1:
        raise _refused(model, "some of its norms subtract the mean and some do not")
    readers_of_norms = {name for norm in norms for name in norm.readers}
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), "")
    if head not in readers_of_norms:
        raise _refused(model, f"its head, {head}, does not read the last norm of the residual stream")
    layers = block_linears(model)
    writers = [name for name, layer in layers.items() if name not in readers_of_norms and len(matrix(layer)) == width]
    embeddings = [call.name for call in trace.calls if isinstance(call.module, nn.Embedding) and call.output.shape[-1] == width]
    rotation = draw("r1", width)
    [subtracts] = centred
    return StreamRotation(rotation.keeping_ones() if subtracts else rotation, embeddings, norms, writers, subtracts)


def _values(trace: _Trace, block: str, draw: Callable[[str, int], Orthogonal]) -> ValueRotation:
    before, _, values = trace.attention[block]
    width = values.shape[-1]
    source = next((call for call in trace.calls[:before] if is_linear(call.module) and _same_memory(call.output, values)), None)
    reader = next((call for call in trace.calls[before:] if is_linear(call.module)), None)
    if source is None or reader is None or reader.read.shape[-1] % width or values.stride(2) != source.output.stride(-2):
        raise UserError(
            f"quant.rotation.kinds: r2 rotates values where a linear layer writes them, and in {block} attention reads other "
            "numbers than a linear layer gave. Leave r2 out."
        )
    heads, columns = torch.arange(values.shape[1])[:, None], torch.arange(width)
    rows = values.storage_offset() - source.output.storage_offset() + heads * values.stride(1) + columns * values.stride(3)
    return ValueRotation(draw(f"r2 {block}", width), source.name, torch.unique(rows, dim=0), reader.name)


def _inputs(model: nn.Module, names: list[str], draw: Callable[[str, int], Orthogonal]) -> list[InputRotation]:
    layers = block_linears(model)
    widths = sorted({matrix(layers[name]).shape[1] for name in names})
    return [
        InputRotation(draw(f"r4 {width}", width), [name for name in names if matrix(layers[name]).shape[1] == width])
        for width in widths
    ]


def _head_width(trace: _Trace) -> int:
    widths = {tensor.shape[-1] for _, *states in trace.attention.values() for tensor in states}
    if len(widths) != 1:
        raise UserError(
            f"quant.rotation.kinds: r3 rotates keys and values by one matrix, but they are {sorted(widths)} wide here. "
            "Leave r3 out."
        )
    return widths.pop()


def _same_memory(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool(first.untyped_storage()._cdata == second.untyped_storage()._cdata)


def _weight_shape(module: nn.Module) -> tuple[int, ...] | None:
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else None


def _with_random_weights(norm: nn.Module) -> nn.Module:
    """Return a copy of a norm, which may have no weights, in the CPU's memory."""
    real = copy.deepcopy(norm).to_empty(device="cpu").float()
    for weight in real.parameters():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return real


def _subtracts_mean(norm: nn.Module, width: int) -> bool:
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(1))
    return torch.allclose(norm(x + 1), norm(x), atol=1e-3)
