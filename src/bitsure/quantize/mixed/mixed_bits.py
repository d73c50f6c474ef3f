"""Bits of their own for each layer, so that the model takes at most so many bits per weight and loses least."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from bitsure.base.errors import UserError, at_least, one_of
from bitsure.config.model import ModelSettings
from bitsure.config.quantizers import QuantizerSettings
from bitsure.models.locate import Source
from bitsure.quantize.mixed.recipe import RECIPE, Recipe, grid_of
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget, Quantizer, as_quantizer

if TYPE_CHECKING:
    from torch import nn

    from bitsure.quantize.mixed.sensitivities import Losses

FORMAT = 2  # of the losses in the store; one more whenever our code would measure others
EXAMPLE = "quant=mixed quant.bits_per_weight=3.5"


@dataclass
class MixedBits(Quantizer):
    """The quantizer `like` with bits of their own for each layer: by a recipe, or so that the losses sum up to the least."""

    like: QuantizerSettings = MISSING  # how weights are rounded: rtn, awq or gptq (by our own solver)
    bits_per_weight: float | None = None  # the most that a weight takes in the mean, scales and zero points counted
    candidates: list[int] = field(default_factory=lambda: [2, 3, 4, 8])  # bits that a layer may have
    tokens: int = 1024  # of calibration text on which losses are measured
    recipe: str | None = None  # a file with the bits of each layer, as a run writes it: instead of bits_per_weight

    def __post_init__(self) -> None:
        """Raise UserError for settings that contradict each other, and for a recipe that cannot be read."""
        if (self.bits_per_weight is None) == (self.recipe is None):
            given = f"bits_per_weight={self.bits_per_weight}, recipe={self.recipe}"
            raise UserError(
                f"quant=mixed: needs either quant.bits_per_weight or quant.recipe=FILE; got {given}. Example: {EXAMPLE}"
            )
        if self.bits_per_weight is not None and not 0 < self.bits_per_weight < math.inf:
            raise UserError(f"quant.bits_per_weight={self.bits_per_weight}: a finite number above 0. Example: {EXAMPLE}")
        at_least("quant.tokens", self.tokens, 2)
        self._like = self._own_rounding(8)
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise UserError(f"quant.candidates={list(self.candidates)}: different numbers of bits, such as [2,3,4,8].")
        self._recipe = None if self.recipe is None else Recipe.read(Path(self.recipe))
        for bits in self.candidates:
            one_of("quant.candidates", bits, self._like.widths)
        if self._recipe is not None:
            self._recipe.check_grid(self._like, str(self.recipe))
            for name, bits in self._recipe.layers.items():
                one_of(f"quant.recipe={self.recipe}: {name}", bits, self._like.widths)

    def _own_rounding(self, bits: int) -> RoundingQuantizer:
        """Return how weights are rounded to so many bits. Raises UserError if layers cannot have bits of their own."""
        rounding = as_quantizer(self.like).with_bits(bits)
        if not isinstance(rounding, RoundingQuantizer):
            raise UserError(
                f"quant.like={self.like.name}: mixed bits are those of integer weights alone: quant@quant.like=rtn4, awq4 or "
                "gptq4, without activations, kv, rotations and tuning."
            )
        return rounding

    @property
    def name(self) -> str:
        """How weights are rounded, with the budget, or the beginning of the recipe's hash, in the place of bits."""
        chosen = f"-mixed{self.bits_per_weight:g}" if self._recipe is None else f"-recipe-{_hash(self._recipe.layers)[:6]}"
        return self._like.name.replace(str(self._like.bits), chosen, 1)

    @property
    def needs_data(self) -> bool:
        """Whether bits are chosen, or weights rounded, with calibration text."""
        return self._recipe is None or self._like.needs_data

    @property
    def moves_model(self) -> bool:
        """Whether losses are measured."""
        return self._recipe is None

    @property
    def _quantizers(self) -> dict[int, RoundingQuantizer]:
        """Bits that a layer may have → what rounds to them."""
        return {bits: self._own_rounding(bits) for bits in sorted(self.candidates)}

    def libraries(self) -> tuple[str, ...]:
        """Return torch and transformers, because the model runs."""
        return ("torch", "transformers")

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError for what the settings of the model rule out."""
        if self._recipe is None and model.device_map is not None:
            raise UserError("model.device_map: quant=mixed measures what layers lose on weights in memory. Leave one out.")
        self._like.check_model_settings(model)

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError for a budget that no choice of bits has, and for a recipe of another model."""
        if self._recipe is not None:
            self._recipe.check_layers(set(target.layer_shapes), target.source.name, str(self.recipe))
            return
        assert self.bits_per_weight is not None
        numbers = sum(out * width for out, width in target.layer_shapes.values())
        means = {
            bits: sum(quant.bits_of(*shape) for shape in target.layer_shapes.values()) / numbers
            for bits, quant in self._quantizers.items()
        }
        fewest, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        least, largest = _rounded(means[fewest], math.ceil), _rounded(means[most], math.floor)
        if self.bits_per_weight < means[fewest]:
            raise UserError(
                f"quant.bits_per_weight={self.bits_per_weight:g}: {target.source.name} takes {least:g} with {fewest} "
                "bits, the fewest of quant.candidates, in every layer, scales and zero points counted. Give that or more."
            )
        if self.bits_per_weight > means[most]:
            raise UserError(
                f"quant.bits_per_weight={self.bits_per_weight:g}: {target.source.name} takes {largest:g} with {most} "
                "bits, the most of quant.candidates, in every layer: there is nothing to choose. Give that or less."
            )

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the checkpoint, and of every candidate's weights while they are compared."""
        some = self._quantizers.values() if self._recipe is None else [self._own_rounding(max(self._recipe.layers.values()))]
        return sum(quant.bytes_needed(modules, dtype) for quant in some)

    def identity(self, checkpoint: Source | None) -> dict[str, Any]:
        """Return the method, how weights are rounded, and the recipe's bits, or what they are chosen by."""
        like = self._like.identity(None) | {"bits": None}
        if self._recipe is not None:
            return {"method": "recipe", "rounding": like, "layers": dict(self._recipe.layers)}
        chosen_by = {"bits_per_weight": self.bits_per_weight, "candidates": sorted(self.candidates), "tokens": self.tokens}
        return {"method": "mixedbits", "format": FORMAT, "rounding": like, **chosen_by}

    def quantize(self, job: QuantizationJob) -> None:
        """Choose the bits of each layer unless a recipe does, round the weights, and write the recipe beside them."""
        from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights
        from bitsure.quantize.native import chain
        from bitsure.quantize.weights import IntegerWeight

        recipe = self._recipe or self._choose(job)
        quantizer = self._like.with_layer_bits(recipe.layers)
        windows = job.windows if self._like.needs_data else job.windows[:0]
        chain.quantize(job.model, quantizer, windows, job.parts, job.directory, job.advance)
        written = {name: weight.bits for name, weight in iterate_weights(job.directory)[1] if isinstance(weight, IntegerWeight)}
        if written != dict(recipe.layers):
            differ = sorted(name for name, bits in recipe.layers.items() if written.get(name) != bits)
            raise UserError(f"{', '.join(differ[:5])} have other bits than their recipe says. No score is taken from that.")
        replace(recipe, grid=grid_of(self._like)).write(job.directory / RECIPE)  # a recipe without a grid fits any

    def _choose(self, job: QuantizationJob) -> Recipe:
        """Measure what layers lose, or take it from the store, and choose their bits."""
        from bitsure.quantize.mixed.allocation import choose_bits
        from bitsure.quantize.walk.mixtures import without_number

        assert self.bits_per_weight is not None
        losses = self._losses(job)
        shapes = {name: (len(weight), weight.shape[1]) for name, weight in job.layers().items()}
        storage = {together: dict.fromkeys(self._quantizers, 0) for together in losses}
        for name, shape in shapes.items():
            for bits, quant in self._quantizers.items():
                storage[without_number(name)][bits] += quant.bits_of(*shape)
        numbers = sum(out * width for out, width in shapes.values())
        choice = choose_bits(storage, losses, int(self.bits_per_weight * numbers))

        def summary(bits_of: Mapping[str, int]) -> dict[str, float]:
            return {
                "bits_per_weight": round(sum(storage[name][bits] for name, bits in bits_of.items()) / numbers, 4),
                "sum_of_kl_divergences": float(f"{sum(losses[name][bits] for name, bits in bits_of.items()):.4g}"),
            }

        chosen = {
            "model": job.source.name,
            "most_bits_per_weight": self.bits_per_weight,
            **summary(choice),
            "uniform": {bits: summary(dict.fromkeys(losses, bits)) for bits in self._quantizers},
            "candidates": sorted(self.candidates),
            "tokens": self.tokens,
            "calibration": dict(job.calibration),
            "dtype": job.dtype,
            "rounding": {key: value for key, value in self._like.identity(None).items() if value is not None and key != "bits"},
        }
        return Recipe({name: choice[without_number(name)] for name in shapes}, chosen, grid_of(self._like))

    def _losses(self, job: QuantizationJob) -> Losses:
        from bitsure.quantize.mixed.sensitivities import Losses, measure_losses
        from bitsure.quantize.plan import library_versions
        from bitsure.results import read, write

        key = {
            "format": FORMAT,
            "model": job.source.fingerprint,
            "windows": hashlib.sha256(job.windows.numpy().tobytes()).hexdigest(),
            "dtype": job.dtype,
            "rounding": self._like.identity(None) | {"bits": None},
            "candidates": sorted(self.candidates),
            "tokens": self.tokens,
            "libraries": library_versions(self),
        }

        def fill(entry: Path) -> None:
            parts = job.parts / "sensitivities"
            losses = measure_losses(job.model, self._quantizers, job.windows, self.tokens, parts, job.advance)
            write(entry / "losses.json", losses)

        return read(job.store.ensure("sensitivities", key, fill, to_read=True) / "losses.json", Losses)


def _rounded(bits: float, to_whole: Callable[[float], int]) -> float:
    """Return bits per weight with three digits after the point, rounded to the side that is taken if it is given."""
    return to_whole(round(bits * 1000, 6)) / 1000


def _hash(layers: Mapping[str, int]) -> str:
    return hashlib.sha256(repr(sorted(layers.items())).encode()).hexdigest()
