"""One block of a chain, or one expert: measure its inputs, prepare them, round its weights, and put them back rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.config.quantizers import Rounded, Tuning
from bitsure.quantize.inference.divisions import Division, DivisionSource, find_sources
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native.chain_quantizer import ChainQuantizer, RoundingQuantizer
from bitsure.quantize.native.layers import RoundedWeight, add_effects, check_finite, quantize_layers, to_cpu
from bitsure.quantize.native.reassembly_search import reassemble_block
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.transforms import search_scales, smoothing_scales
from bitsure.quantize.native.tuning import tune
from bitsure.quantize.walk.blocks import Feed
from bitsure.quantize.walk.layer_inputs import Inputs, channel_ranges, layers_by_input, measure
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import dense_linears, matrix
from bitsure.quantize.weights import Weight

Group = dict[str, nn.Module]  # linear layers that read the same input, by their names in the block


@dataclass(frozen=True)
class SharedStructure:
    """What blocks of one structure (the key: their `repr`) share, so that only the first of them is examined."""

    groups: dict[str, list[list[str]]] = field(default_factory=dict)
    """The layers' names, those that read the same input together; see `layers_by_input`."""
    sources: dict[str, list[DivisionSource]] = field(default_factory=dict)
    """For each group the module that a division is folded into; the proof tests it in every block."""


@dataclass
class ChainBlock:
    """The layers of a block that every token reaches, or those of one of its experts, while they are quantized."""

    prefix: str
    """Its name in the model."""
    block: nn.Module
    """Changed in place, until it is what the quantized model has."""
    feed: Feed
    """Runs the calibration text through it."""
    quant: ChainQuantizer
    hooks: InferenceRounding
    shared: SharedStructure
    rotations: Rotations
    """The model is rotated by them already, but for what acts while it runs."""
    groups: list[Group] = field(init=False)
    """In the order in which they run."""
    scheme: InferenceScheme = field(init=False)
    """What the block does while it runs, as far as it is known."""
    weights: dict[str, Weight] = field(default_factory=dict)
    """The weights that are rounded already, on the CPU, by full name."""

    def __post_init__(self) -> None:
        self.scheme = InferenceScheme(self.quant.activations, self.quant.kv, rotations=self.rotations)

    @property
    def has_tokens(self) -> bool:
        """Whether any calibration token reaches the layers."""
        return any(states.numel() for states in self.feed.batches)

    def quantize(self, exact: list[torch.Tensor] | None) -> tuple[float, float]:
        """Quantize the layers; `weights` and `scheme` are complete afterwards.

        Args:
            exact: The block's outputs in the full-precision model, by batch, where it is tuned.

        Returns:
            ‖Ŵ − W‖² and ‖W‖² over all its layers.
        """
        if not self.has_tokens:
            return self._quantize_idle()
        self.groups = layers_by_input(self.block, self.feed, self.shared.groups)
        self._prepare_inputs()
        if apart := {"disassemble", "reassemble"}.intersection(self.quant.transforms):
            self._reassemble(*apart)
        before = self._matrices()
        grid = self.quant.weight_rounding
        if grid is None:
            self._round_all_inputs()
        elif exact is not None and self.quant.block_tuning is not None:
            self._tune(exact, grid, self.quant.block_tuning)
        else:
            # One group at a time measures its inputs after the groups before it are rounded.
            for stage in [[group] for group in self.groups] if grid.true_sequential else [self.groups]:
                self._round_stage(stage, grid)
        return self._change(before)

    def _quantize_idle(self) -> tuple[float, float]:
        """Round the layers of an expert without a token to nearest: there is nothing to learn from."""
        if self.quant.has_static_activations:
            raise UserError(
                f"No calibration token reached {self.prefix}, so that the range of its inputs is not known: give "
                "calib.all_experts=true, more text (calib.nsamples), or quant.activations with a scale for each token."
            )
        layers, before = dense_linears(self.block), self._matrices()
        self.groups = [{name: layer} for name, layer in layers.items()]
        self._round_all_inputs()
        if (grid := self.quant.weight_rounding) is not None:
            for name, layer in layers.items():
                self._put(name, layer, round_to_nearest(matrix(layer), grid.of_layer(self._full_name(name))))
        return self._change(before)

    def _prepare_inputs(self) -> None:
        """Smooth the inputs, and fix the ranges of static activations."""
        smooth = "smooth" in self.quant.transforms
        if not (smooth or self.quant.has_static_activations):
            return
        ranges = channel_ranges(self.groups, self.feed)
        sources: Sequence[DivisionSource | None] = self._division_sources() if smooth else [None] * len(self.groups)
        for group, (low, high), source in zip(self.groups, ranges, sources, strict=True):
            check_finite(high - low, ", ".join(self._names(group)))
            if source is not None:
                scales = self._smooth(group, torch.maximum(high, -low), source)
                low, high = low / scales, high / scales
            if self.quant.has_static_activations:
                self._fix_range(group, low, high)

    def _division_sources(self) -> list[DivisionSource]:
        """Return for each group the module whose output can be divided instead of the group's input."""
        structure = repr(self.block)
        if structure not in self.shared.sources:
            states = self.feed.batches[0]
            self.shared.sources[structure] = find_sources(
                self.block, self.groups, lambda: self.feed.run(states).float() - states.float()
            )
        return self.shared.sources[structure]

    def _smooth(self, group: Group, largest: torch.Tensor, source: DivisionSource) -> torch.Tensor:
        """Divide a group's input by smoothing scales and multiply its weights; return the scales, (in,)."""
        scales = smoothing_scales(largest, _rows(group), self.quant.smooth_alpha)
        module, multiplies_by = source
        names = self._names(group)
        division = Division(names, scales.cpu(), module and self._full_name(module), multiplies_by)
        division.apply(self._module_of)
        if module is None:
            self.hooks.on_layers(list(group.values()), InputTransform(divisor=scales))
        self.scheme.divisions.append(division)
        add_effects(self.scheme.transform_effects, {"smooth": {", ".join(names): (scales.max() / scales.min()).item()}})
        return scales

    def _reassemble(self, transform: str) -> None:
        """Spread outlier channels; fixed ranges become those of the reassembled inputs."""
        reassembled, static_ranges = reassemble_block(self.block, self.prefix, self.feed, self.groups, self.quant, self.hooks)
        self.scheme.reassembled.extend(reassembled)
        self.scheme.static_ranges.update(static_ranges)
        copies = {", ".join(each.layers): float(each.reassembly.most_copies) for each in reassembled}
        add_effects(self.scheme.transform_effects, {transform: copies})

    def _tune(self, exact: list[torch.Tensor], grid: RoundingQuantizer, settings: Tuning) -> None:
        """Tune all weights together, then round them."""
        self._round_all_inputs()
        ratio = tune(self.block, self.prefix, self.feed, exact, grid, settings)
        add_effects(self.scheme.transform_effects, {"tuning": {self.prefix: ratio}})
        for name, layer in dense_linears(self.block).items():
            self._put(name, layer, round_to_nearest(matrix(layer), grid))

    def _round_stage(self, stage: list[Group], grid: RoundingQuantizer) -> None:
        """Round the inputs and the weights of groups that are measured in one pass."""
        scales: Sequence[torch.Tensor | None] = [None] * len(stage)
        if self.quant.activations is not None:
            if "scale" in self.quant.transforms:  # Searched on inputs that are not rounded yet.
                scales = self._search_scales(stage, grid)
            # Nothing before a stage's only group is replaced any more.
            replay = self.feed.replay if grid.true_sequential else None
            for group, group_scales in zip(stage, scales, strict=True):
                self._round_inputs(group, group_scales, replay)
        statistics = measure(stage, self.feed, means="scale" in self.quant.transforms)
        for group, inputs, group_scales in zip(stage, statistics, scales, strict=True):
            self._round_group(group, inputs, grid, group_scales)
        self.feed.replay.finish({name.removeprefix(f"{self.prefix}.") for name in self.weights})

    def _search_scales(self, stage: list[Group], grid: Rounded) -> list[torch.Tensor]:
        """Return the scales (in,) of each group's input; fixed ranges become those of the input divided by them."""
        statistics = measure(stage, self.feed, means=True)
        scales = [
            search_scales(_rounded_together(group, grid), inputs, grid) for group, inputs in zip(stage, statistics, strict=True)
        ]
        if self.quant.has_static_activations:
            for group, divisor, (low, high) in zip(stage, scales, channel_ranges(stage, self.feed), strict=True):
                self._fix_range(group, low / divisor, high / divisor)
        return scales

    def _round_group(self, group: Group, inputs: Inputs, grid: RoundingQuantizer, scales: torch.Tensor | None) -> None:
        """Round the weights of one group; scales: (in,), what its input is divided by already."""
        layers = {self._full_name(name): matrix(layer) for name, layer in group.items()}
        rounded, effects = quantize_layers(layers, inputs, grid, ", ".join(layers), scales)
        add_effects(self.scheme.transform_effects, effects)
        for (name, layer), weight in zip(group.items(), rounded.values(), strict=True):
            self._put(name, layer, weight)

    def _round_all_inputs(self) -> None:
        for group in self.groups:
            self._round_inputs(group)

    def _round_inputs(self, group: Group, scales: torch.Tensor | None = None, replay: Replay | None = None) -> None:
        """From now on, let a group read rounded inputs, divided by `scales` (in,) before, and by smoothing before that."""
        if self.quant.activations is not None:
            name = self._names(group)[0]
            static_range, reassembly = self.scheme.static_ranges.get(name), self.scheme.reassembly_of(name)
            if reassembly is not None and not reassembly.is_wider:
                reassembly = None  # The input is reassembled already.
            factor = None if scales is None else (1 / scales).half().float()  # as it is stored
            transform = InputTransform(factor, self.quant.activations, static_range, reassembly=reassembly)
            layers = list(group.values())
            self.hooks.on_layers(layers, transform.on(matrix(layers[0]).device), replay)

    def _fix_range(self, group: Group, low: torch.Tensor, high: torch.Tensor) -> None:
        """Fix the range of a group's input to that of all its channels; low, high: those of each channel, (in,)."""
        limits = torch.stack([low.min(), high.max()]).cpu()
        self.scheme.static_ranges.update(dict.fromkeys(self._names(group), limits))

    def _put(self, name: str, layer: nn.Module, weight: RoundedWeight) -> None:
        """Keep a rounded weight, and let the block compute with it."""
        put_weight(layer, weight, self.scheme)
        self.weights[self._full_name(name)] = to_cpu(weight)

    def _matrices(self) -> dict[str, torch.Tensor]:
        return {name: matrix(layer).clone() for name, layer in dense_linears(self.block).items()}

    def _change(self, before: dict[str, torch.Tensor]) -> tuple[float, float]:
        after = self._matrices()
        change = torch.stack([(after[name] - weight).float().norm() ** 2 for name, weight in before.items()]).sum()
        whole = torch.stack([weight.float().norm() ** 2 for weight in before.values()]).sum()
        return change.item(), whole.item()

    def _full_name(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def _names(self, group: Group) -> list[str]:
        return [self._full_name(name) for name in group]

    def _module_of(self, name: str) -> nn.Module:
        return self.block.get_submodule(name.removeprefix(f"{self.prefix}."))


@torch.no_grad()
def put_weight(layer: nn.Module, weight: Weight, scheme: InferenceScheme) -> None:
    """Copy a quantized weight into a layer, without the factors that the scheme multiplies the layer's input by."""
    matrix(layer).copy_(scheme.layer_matrix(weight))


def _rounded_together(group: Group, grid: Rounded) -> list[torch.Tensor]:
    """Return the matrices (out, in) of a group that are rounded as one; with one scale a tensor each layer's own."""
    if grid.group_size == 0:
        return [matrix(layer).detach().float() for layer in group.values()]
    return [_rows(group)]


def _rows(group: Group) -> torch.Tensor:
    return torch.cat([matrix(layer).detach().float() for layer in group.values()])
