"""The inference scheme of a checkpoint: what a quantized model does while it runs, besides reading its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.inference.divisions import Division
from bitsure.quantize.inference.reassembly import ReassembledInput, Reassembly
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.inference.stored_rotations import from_stored, to_stored
from bitsure.quantize.weights import Weight

# The tensors have a folder of their own: every safetensors file beside model.safetensors holds weights.
SETTINGS, TENSORS = "runtime.json", "runtime/tensors.safetensors"


@dataclass(frozen=True)
class InferenceScheme:
    """What a checkpoint holds besides tensors of the model: rounding, rotations, divisions and reassembly of layers' inputs."""

    activations: Activations | None = None
    """The number format of the layers' inputs; None: they are not rounded."""
    kv: KeysValues | None = None
    """The number format of keys and values; None: they are not rounded."""
    divisions: list[Division] = field(default_factory=list)
    """In the order in which they were made."""
    static_ranges: dict[str, torch.Tensor] = field(default_factory=dict)
    """Layer → (low, high) of its input, shape (2,), where the range is fixed beforehand."""
    transform_effects: dict[str, dict[str, float]] = field(default_factory=dict)
    """Transform → layers that read one input → how much it changed, as `inference_changes.MEASURES` defines it."""
    reassembled: list[ReassembledInput] = field(default_factory=list)
    """Applied after the divisions."""
    rotations: Rotations = field(default_factory=Rotations)
    """Applied before the divisions."""

    def __bool__(self) -> bool:
        """Return whether the model does anything besides reading its weights."""
        return any(getattr(self, setting.name) for setting in dataclasses.fields(self))

    @classmethod
    def merge(cls, parts: Sequence[InferenceScheme], rotations: Rotations) -> InferenceScheme:
        """Return the scheme of a model from those of its blocks, in their order, and the whole model's rotations."""
        effects: dict[str, dict[str, float]] = {}
        for part in parts:
            for transform, by_layers in part.transform_effects.items():
                effects.setdefault(transform, {}).update(by_layers)
        return cls(
            activations=parts[0].activations,
            kv=parts[0].kv,
            divisions=[division for part in parts for division in part.divisions],
            static_ranges={name: limits for part in parts for name, limits in part.static_ranges.items()},
            transform_effects=effects,
            reassembled=[reassembled for part in parts for reassembled in part.reassembled],
            rotations=rotations,
        )

    def write(self, directory: Path) -> None:
        """Write the scheme into a checkpoint's directory; write nothing if the model does nothing besides."""
        if not self:
            return
        divisions = [{key: value for key, value in vars(each).items() if key != "scales"} for each in self.divisions]
        tensors = {f"scales.{number}": division.scales for number, division in enumerate(self.divisions)}
        tensors |= {f"span.{name}": limits for name, limits in self.static_ranges.items()}
        for number, reassembled in enumerate(self.reassembled):
            parts = vars(reassembled.reassembly)
            tensors |= {f"reassembly.{number}.{key}": tensor for key, tensor in parts.items()}
        rotations, matrices = to_stored(self.rotations)
        tensors |= matrices
        settings = {
            "activations": asdict(self.activations) if self.activations else None,
            "kv": asdict(self.kv) if self.kv else None,
            "divisions": divisions,
            "reassembled": [{"layers": each.layers, "searched": each.searched} for each in self.reassembled],
            "moved": self.transform_effects,
            "rotations": rotations,
        }
        (directory / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        if tensors:
            (directory / TENSORS).parent.mkdir()
            contiguous = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
            save_file(contiguous, directory / TENSORS)

    @classmethod
    def read(cls, directory: Path) -> InferenceScheme:
        """Read a checkpoint's scheme; an empty one if it has none."""
        if not (directory / SETTINGS).is_file():
            return cls()
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(directory / TENSORS) if (directory / TENSORS).is_file() else {}
        parts = [part.name for part in dataclasses.fields(Reassembly)]
        return cls(
            activations=Activations(**settings["activations"]) if settings["activations"] else None,
            kv=KeysValues(**settings["kv"]) if settings["kv"] else None,
            divisions=[
                Division(**division, scales=tensors[f"scales.{number}"])
                for number, division in enumerate(settings["divisions"])
            ],
            static_ranges={name.removeprefix("span."): limits for name, limits in tensors.items() if name.startswith("span.")},
            transform_effects=settings["moved"],
            reassembled=[
                ReassembledInput(
                    reassembly=Reassembly(**{part: tensors[f"reassembly.{number}.{part}"] for part in parts}), **reassembled
                )
                for number, reassembled in enumerate(settings["reassembled"])
            ],
            rotations=from_stored(settings["rotations"], tensors) if "rotations" in settings else Rotations(),
        )

    def input_factors(self, weights: Mapping[str, Weight]) -> dict[str, torch.Tensor]:
        """Return what each layer's input is multiplied by before it is rounded, shape (in,), by layer.

        Without rounding of activations there are none: the weights take up the factors.
        """
        if self.activations is None:
            return {}
        scales = {name: weight.split_input_scales()[1] for name, weight in weights.items()}
        return {name: factor.float() for name, factor in scales.items() if factor is not None}

    def layer_matrix(self, weight: Weight) -> torch.Tensor:
        """Return the matrix that a layer multiplies by, (out, in) float32: without factors that its input is multiplied by."""
        return (weight if self.activations is None else weight.split_input_scales()[0]).dequantize()

    def reassembly_of(self, layer: str) -> Reassembly | None:
        """Return how a layer's input channels are reassembled; None if none is taken apart or merged."""
        for reassembled in self.reassembled:
            if layer in reassembled.layers and reassembled.reassembly.changes_channels:
                return reassembled.reassembly
        return None
