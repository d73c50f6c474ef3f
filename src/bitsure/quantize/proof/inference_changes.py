"""The proof that activations, keys and values are rounded, and that transforms changed something; by how much."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.base.progress import counted, progress
from bitsure.config.number_formats import BYTE_SCALES, AtRunTime
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.keys_values import KeysAndValues
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.proof.output_errors import root_ratio
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import block_linears, find_blocks, linears
from bitsure.results.quantization import ReassemblySearch, RoundedStates, TransformEffect

log = logging.getLogger(__name__)
# The effect of a transform that did nothing.
NOTHING = {
    "smooth": 1.0,
    "disassemble": 1.0,
    "reassemble": 1.0,
    "scale": 1.0,
    "clip": 0.0,
    "clip_asymmetric": 0.0,
    "tuning": 1.0,
}
# What the effect is.
MEASURES = {
    "smooth": "largest scale / smallest",
    "disassemble": "most parts that a channel was taken into",
    "reassemble": "most parts that a channel was taken into",
    "scale": "largest scale / smallest",
    "clip": "share of groups narrowed",
    "clip_asymmetric": "share of groups narrowed",
    "tuning": "error of the block's output, tuned / not tuned, on the calibration text",
}


@torch.no_grad()
def prove_inference(
    model: nn.Module, checkpoint: CheckpointContents, held_out: torch.Tensor, rotated: TransformEffect | None = None
) -> dict[str, Any]:
    """Return the fields of `Quantization` that are not about weights.

    Args:
        model: In full precision, rotated and divided as the scheme says.
        checkpoint: What was read back from disk.
        held_out: Token ids, shape (windows, seqlen).
        rotated: What rotations did to layers' inputs.

    Returns:
        `activations`, `keys_and_values` and `transforms`, as far as the scheme has them.

    Raises:
        UserError: If inputs of layers, or keys or values of blocks, were not reached by rounding, or all are the same after
            it, or if a transform changed nothing; they are named.
    """
    scheme = checkpoint.scheme
    changes = _measure(model, checkpoint, held_out)
    fields: dict[str, Any] = {}
    if scheme.activations is not None:
        layers = set(block_linears(model))
        fields["activations"] = _rounded_states(
            "activations", scheme.activations, changes.activations, layers, held_out.numel()
        )
    if scheme.kv is not None:
        prefix, blocks = find_blocks(model)
        names = {f"{prefix}.{number} {which}" for number in range(len(blocks)) for which in ("keys", "values")}
        fields["keys_and_values"] = _rounded_states(
            "keys and values", scheme.kv, changes.keys_and_values, names, held_out.numel()
        )
    effects = {"rotate": rotated} if rotated else {}
    effects |= {transform: _transform_effect(transform, scheme, changes.reassembled) for transform in scheme.transform_effects}
    return fields | ({"transforms": effects} if effects else {})


@dataclass
class _Sums:
    """Sums of squares over values x that are rounded to Q(x)."""

    change: float = 0.0
    """Of Q(x) − x."""
    norm: float = 0.0
    """Of x."""
    off_grid: float = 0.0
    """Of Q(x) − Q₃₂(x), with Q₃₂ computed in float32."""
    rows_of_width: Counter[int] = field(default_factory=Counter)
    """Width of x → how many rows of this width there were."""

    def add(self, before: torch.Tensor, rounds: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x, after = before.double(), rounds(before).double()
        exact = after if before.dtype == torch.float32 else rounds(before.float()).double()
        self.change += (after - x).square().sum().item()
        self.norm += x.square().sum().item()
        self.off_grid += (after - exact).square().sum().item()
        self.rows_of_width[x.shape[-1]] += x.numel() // x.shape[-1]


@dataclass
class _Spread:
    """What reassembling did to a layer's input."""

    before: float = 0.0
    """The largest magnitude before."""
    after: float = 0.0
    """The largest magnitude after."""
    changed: bool = False


@dataclass
class _Changes:
    """What rounding and reassembling did, by layer, or by block and `keys` or `values`."""

    activations: dict[str, _Sums] = field(default_factory=dict)
    keys_and_values: dict[str, _Sums] = field(default_factory=dict)
    reassembled: dict[str, _Spread] = field(default_factory=dict)


def _rounded_states(what: str, numbers: AtRunTime, sums: Mapping[str, _Sums], expected: set[str], tokens: int) -> RoundedStates:
    if missing := expected - sums.keys():
        raise UserError(
            f"The quantizer did not do its work: {what} were not reached: {', '.join(sorted(missing))}. No score is taken "
            f"from such a model."
        )
    not_zero = [name for name, each in sums.items() if each.norm > 0]
    unchanged = sorted(name for name in not_zero if sums[name].change == 0)
    if unchanged and len(unchanged) == len(not_zero):
        raise UserError(
            f"The quantizer did not do its work. The {what} of {len(unchanged)} of {len(sums)} are unchanged: "
            f"{', '.join(unchanged)}. No score is taken from such a model."
        )
    if unchanged:
        log.warning("%s that are on the grid already on the held-out text: %s", what, ", ".join(unchanged))
    rows_of_width: Counter[int] = sum((each.rows_of_width for each in sums.values()), Counter())
    values = sum(width * rows for width, rows in rows_of_width.items())
    return RoundedStates(
        bits=numbers.bits,
        group_size=numbers.group_size,
        symmetric=numbers.symmetric,
        format=numbers.format,
        errors={name: root_ratio(each.change, each.norm) for name, each in sums.items()},
        off_grid=max((root_ratio(each.off_grid, each.norm) for each in sums.values() if each.norm), default=0.0),
        always_zero=sorted(name for name, each in sums.items() if each.norm == 0),
        values_per_token=values / tokens,
        bits_per_value=(numbers.bits or 0) + _bits_of_scales(numbers, rows_of_width) / values,
    )


def _bits_of_scales(numbers: AtRunTime, rows_of_width: Mapping[int, int]) -> int:
    """Return the bits of scales and zero points beside rounded rows, as `RoundedStates.bits_per_value` counts them."""
    size = numbers.group_size or 0
    if size == 0:  # The whole tensor's scale is fixed beforehand.
        return 0
    groups = sum(rows * (-(-width // size) if size > 0 else 1) for width, rows in rows_of_width.items())
    return groups * ((8 if numbers.format in BYTE_SCALES else 16) + (0 if numbers.symmetric else numbers.bits or 0))


def _transform_effect(transform: str, scheme: InferenceScheme, spreads: Mapping[str, _Spread]) -> TransformEffect:
    """Return what a transform did to the layers of each input, and where there was nothing to do."""
    by_layers = scheme.transform_effects[transform]
    idle = sorted(names for names, effect in by_layers.items() if effect == NOTHING[transform])
    if len(idle) == len(by_layers):
        log.warning("%s changed nothing: it would improve no layer", transform)
        if transform == "smooth":
            raise UserError("quant.transforms=[smooth] changed nothing: every scale is 1. No score is taken from such a model.")
    details: dict[str, Any] = {}
    if transform in ("disassemble", "reassemble"):
        largest_input = _largest_inputs(transform, spreads)
        details["searched"] = {", ".join(each.layers): ReassemblySearch(**each.searched) for each in scheme.reassembled}
        details["largest_input"] = largest_input
    if transform == "smooth":
        details["folded_into"] = {", ".join(each.layers): each.source or "at run time" for each in scheme.divisions}
    return TransformEffect(measure=MEASURES[transform], layers=by_layers, nothing_to_move=idle, **details)


def _largest_inputs(transform: str, spreads: Mapping[str, _Spread]) -> dict[str, tuple[float, float]]:
    if same := sorted(name for name, spread in spreads.items() if not spread.changed):
        raise UserError(
            f"quant.transforms=[{transform}] changed nothing in the inputs of {', '.join(same)} on held-out text. No score is "
            f"taken from such a model."
        )
    return {name: (spread.before, spread.after) for name, spread in spreads.items()}


def _measure(model: nn.Module, checkpoint: CheckpointContents, held_out: torch.Tensor) -> _Changes:
    """Run held-out text through the full-precision model, and round there what the scheme rounds."""
    scheme, changes = checkpoint.scheme, _Changes()
    if scheme.activations is None and scheme.kv is None:
        return changes
    factors = scheme.input_factors(checkpoint.weights)
    _, blocks = find_blocks(model)
    with progress("verifying what is rounded at run time", len(blocks), "blocks") as advance, ExitStack() as stack:
        for prefix, block, _ in counted(walk(model, held_out, reach_all=True), advance):
            if scheme.kv is not None:
                watch = _watch_keys_and_values(prefix, scheme, changes)
                stack.callback(InferenceRounding().on_keys_and_values(block, watch).remove)
            for inner, layer in linears(block).items() if scheme.activations is not None else ():
                name = f"{prefix}.{inner}"
                stack.callback(layer.register_forward_pre_hook(_watch_input(name, scheme, factors.get(name), changes)).remove)
    return changes


def _watch_input(
    name: str, scheme: InferenceScheme, factor: torch.Tensor | None, changes: _Changes
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    rounds = InputTransform(numbers=scheme.activations, static_range=scheme.static_ranges.get(name))
    multiply, reassembly = InputTransform(factor), scheme.reassembly_of(name)

    def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if reassembly is not None:
            x = reassembly.inputs(x)
            spread = changes.reassembled.setdefault(name, _Spread())
            spread.before = max(spread.before, inputs[0].abs().max().item())
            spread.after = max(spread.after, x.abs().max().item())
            spread.changed = spread.changed or not torch.equal(x, inputs[0])
        changes.activations.setdefault(name, _Sums()).add(multiply(x), rounds)

    return hook


def _watch_keys_and_values(
    block: str, scheme: InferenceScheme, changes: _Changes
) -> Callable[[torch.Tensor, torch.Tensor], KeysAndValues]:
    rounds, rotation = InputTransform(numbers=scheme.kv), scheme.rotations.keys_and_values

    def watch(keys: torch.Tensor, values: torch.Tensor) -> KeysAndValues:
        for which, states in (("keys", keys), ("values", values)):
            rotated = states if rotation is None else rotation(states)
            changes.keys_and_values.setdefault(f"{block} {which}", _Sums()).add(rotated, rounds)
        return keys, values

    return watch
