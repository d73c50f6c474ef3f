"""The proof that activations, keys and values are rounded, and that transforms moved something; what each of it moved."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InferenceRounding, InputTransform, attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import block_linears, find_blocks, linears
from bitsure.quantize.weights.formats import Weight

log = logging.getLogger(__name__)
# ‖difference‖ / ‖output‖ of one function whose weights were divided and rounded to their type again
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 2e-2}
# `InferenceScheme.transform_effects` where a transform did nothing
NOTHING = {"smooth": 1.0, "reassemble": 1.0, "scale": 1.0, "clip": 0.0, "clip_asymmetric": 0.0, "tuning": 1.0}
MEASURES = {  # what it says
    "smooth": "largest scale / smallest",
    "reassemble": "most parts that a channel was taken into",
    "scale": "largest scale / smallest",
    "clip": "share of groups narrowed",
    "clip_asymmetric": "share of groups narrowed",
    "tuning": "error of the block's output, tuned / not tuned, on the calibration text",
}


@torch.no_grad()
def divide(model: nn.Module, scheme: InferenceScheme, held_out: torch.Tensor) -> None:
    """Divide and multiply in a full-precision model as a checkpoint says. Raises UserError if that changes its function."""

    def states() -> torch.Tensor:
        return model.base_model(input_ids=held_out.to(model.device), use_cache=False)[0]

    expected = states()
    for division in scheme.divisions:
        division.apply(model.get_submodule)
    attach(model, InferenceScheme(divisions=scheme.divisions), {})
    change = ((states() - expected).float().norm() / expected.float().norm()).item()
    if not change <= SAME[expected.dtype]:
        raise UserError(
            f"quant.transforms=[smooth] changed what the model computes before anything was rounded, by {change:.2g} of it. "
            "No score is taken from such a model."
        )


@torch.no_grad()
def report(model: nn.Module, weights: dict[str, Weight], scheme: InferenceScheme, held_out: torch.Tensor) -> dict:
    """The part of quantization.json that is not about weights.

    model: in full precision, divided as the scheme says; held_out: (windows, seqlen) token ids. Errors are relative, of what
    the full-precision model has there: ‖Q(x) − x‖ / ‖x‖; `off_grid` is the largest part of one that the model's own type makes
    by rounding Q(x), a number of the format times its scale, once more: 0 in float32. Raises UserError naming the layers whose
    inputs, and the blocks whose keys or values, were not reached, or are the same after rounding, though they are not zero.
    """
    found = _errors(model, weights, scheme, held_out)
    said: dict = {}
    for what, numbers in (("activations", scheme.activations), ("keys and values", scheme.kv)):
        if numbers is None:
            continue
        errors = found[what]
        if missing := _expected(model, what) - errors.keys():
            raise UserError(
                f"The quantizer did not do its work: {what} were not reached: {', '.join(sorted(missing))}. No score is taken "
                f"from such a model."
            )
        if unchanged := sorted(name for name, (change, norm, _) in errors.items() if change == 0 and norm > 0):
            raise UserError(
                f"The quantizer did not do its work. The {what} of {len(unchanged)} of {len(errors)} are unchanged: "
                f"{', '.join(unchanged)}. No score is taken from such a model."
            )
        said[what.replace(" ", "_")] = {
            **vars(numbers),
            "errors": {name: (change / norm) ** 0.5 if norm else 0.0 for name, (change, norm, _) in errors.items()},
            "off_grid": max(((off / norm) ** 0.5 for _, norm, off in errors.values() if norm), default=0.0),
            "always_zero": sorted(name for name, (_, norm, _) in errors.items() if norm == 0),
        }
    if scheme.transform_effects:
        said["transforms"] = {transform: _moved(transform, scheme) for transform in scheme.transform_effects}
    if "reassemble" in scheme.transform_effects:
        said["transforms"]["reassemble"]["largest_input"] = _spread(found["reassembled"])
    return said


def _expected(model: nn.Module, what: str) -> set[str]:
    """What must be rounded: the inputs of every layer, or the keys and values of every block."""
    if what == "activations":
        return set(block_linears(model))
    prefix, blocks = find_blocks(model)
    return {f"{prefix}.{number} {which}" for number in range(len(blocks)) for which in ("keys", "values")}


def _spread(ranges: dict[str, tuple[float, float, bool]]) -> dict[str, list[float]]:
    """[max|x|, max|x'|] of the layers' inputs on held-out text before and after reassembling. Raises UserError if x' is x."""
    if same := sorted(name for name, (_, _, moved) in ranges.items() if not moved):
        raise UserError(
            f"quant.transforms=[reassemble] moved nothing in the inputs of {', '.join(same)} on held-out text. No score is "
            f"taken from such a model."
        )
    return {name: [before, after] for name, (before, after, _) in ranges.items()}


def _moved(transform: str, scheme: InferenceScheme) -> dict:
    """What a transform did to the layers of each input, and where there was nothing to move."""
    went = scheme.transform_effects[transform]
    idle = sorted(names for names, measure in went.items() if measure == NOTHING[transform])
    if len(idle) == len(went):
        log.warning("%s moved nothing: no layer was found better off", transform)
        if transform == "smooth":
            raise UserError("quant.transforms=[smooth] moved nothing: every scale is 1. No score is taken from such a model.")
    found = {"measure": MEASURES[transform], "layers": went, "nothing_to_move": idle}
    if transform == "reassemble":
        found["searched"] = {", ".join(one.layers): one.searched for one in scheme.reassembled}
    if transform == "smooth":
        folded = {", ".join(one.layers): one.source or "at run time" for one in scheme.divisions}
        found["folded_into"] = folded
    return found


def _errors(model: nn.Module, weights: dict[str, Weight], scheme: InferenceScheme, held_out: torch.Tensor) -> dict[str, dict]:
    """Of the layers' inputs and of the blocks' keys and values Σ(Q(x) − x)², Σx² and Σ(Q(x) − Q₃₂(x))², with Q₃₂ in float32.

    And what reassembling did to inputs.
    """
    found: dict[str, dict] = {"activations": {}, "keys and values": {}, "reassembled": {}}
    if scheme.activations is None and scheme.kv is None:
        return found

    def add(what: str, name: str, before: torch.Tensor, rounds: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x, after = before.double(), rounds(before).double()
        exact = after if before.dtype == torch.float32 else rounds(before.float()).double()
        sums = (part.square().sum().item() for part in (after - x, x, after - exact))
        found[what][name] = tuple(map(sum, zip(found[what].get(name, (0.0, 0.0, 0.0)), sums, strict=True)))

    multiplied = scheme.input_factors(weights)

    def on_layer(name: str):
        change = InputTransform(numbers=scheme.activations, static_range=scheme.static_ranges.get(name))

        reassembly = scheme.reassembly_of(name)

        def hook(layer, inputs):
            x = inputs[0]
            if reassembly is not None:
                x = reassembly.inputs(x)
                whole, spread, moved = found["reassembled"].get(name, (0.0, 0.0, False))
                largest = max(whole, inputs[0].abs().max().item()), max(spread, x.abs().max().item())
                found["reassembled"][name] = *largest, moved or not torch.equal(x, inputs[0])
            add("activations", name, InputTransform(multiplied.get(name))(x), change)

        return hook

    def on_block(name: str):
        def look(keys, values):
            for what, before in (("keys", keys), ("values", values)):
                add("keys and values", f"{name} {what}", before, InputTransform(numbers=scheme.kv))
            return keys, values

        return look

    handles = []
    try:
        for prefix, block, _ in walk(model, held_out):
            if scheme.kv is not None:
                handles.append(InferenceRounding().on_keys_and_values(block, on_block(prefix)))
            for name, layer in linears(block).items() if scheme.activations is not None else ():
                handles.append(layer.register_forward_pre_hook(on_layer(f"{prefix}.{name}")))
    finally:
        for handle in handles:
            handle.remove()
    return found
