"""What a quantized model does while it runs, beside its weights, as a checkpoint keeps it; `hooks.py` makes a model do it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.inference.divisions import Division
from bitsure.quantize.inference.reassembly import Reassembled, Reassembly
from bitsure.quantize.weights.formats import Weight

SETTINGS, TENSORS = "runtime.json", "runtime/tensors.safetensors"  # not beside model.safetensors, whose like are all weights
FIELDS = [one.name for one in dataclasses.fields(Reassembly)]


@dataclass(frozen=True)
class Runtime:
    """What a checkpoint holds besides tensors of the model."""

    activations: Activations | None = None
    kv: KeysValues | None = None
    divisions: list[Division] = field(default_factory=list)  # in the order in which they were made
    spans: dict[str, torch.Tensor] = field(default_factory=dict)  # layer → (low, high) of its input, where that is fixed
    # transform → layers that read one input → how far it went, as `at_run_time.MEASURES` says
    moved: dict[str, dict[str, float]] = field(default_factory=dict)
    reassembled: list[Reassembled] = field(default_factory=list)  # after the divisions

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in dataclasses.fields(self))


def merged(parts: list[Runtime]) -> Runtime:
    """Of one checkpoint's blocks."""
    if not parts:
        return Runtime()
    moved: dict[str, dict[str, float]] = {}
    for part in parts:
        for transform, found in part.moved.items():
            moved.setdefault(transform, {}).update(found)
    divisions = [division for part in parts for division in part.divisions]
    spans = {name: span for part in parts for name, span in part.spans.items()}
    reassembled = [one for part in parts for one in part.reassembled]
    return Runtime(parts[0].activations, parts[0].kv, divisions, spans, moved, reassembled)


def write(directory: Path, runtime: Runtime) -> None:
    """Nothing where there is nothing to say."""
    if not runtime:
        return
    divisions = [{key: value for key, value in vars(one).items() if key != "scales"} for one in runtime.divisions]
    tensors = {f"scales.{number}": one.scales for number, one in enumerate(runtime.divisions)}
    tensors |= {f"span.{name}": span for name, span in runtime.spans.items()}
    for number, one in enumerate(runtime.reassembled):
        tensors |= {f"reassembly.{number}.{key}": tensor for key, tensor in vars(one.reassembly).items()}
    settings = {
        "activations": asdict(runtime.activations) if runtime.activations else None,
        "kv": asdict(runtime.kv) if runtime.kv else None,
        "divisions": divisions,
        "reassembled": [{"layers": one.layers, "searched": one.searched} for one in runtime.reassembled],
        "moved": runtime.moved,
    }
    (directory / SETTINGS).write_text(json.dumps(settings))
    if tensors:
        (directory / TENSORS).parent.mkdir()
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, directory / TENSORS
        )


def read(directory: Path) -> Runtime:
    if not (directory / SETTINGS).is_file():
        return Runtime()
    settings = json.loads((directory / SETTINGS).read_text())
    tensors = load_file(directory / TENSORS) if (directory / TENSORS).is_file() else {}
    return Runtime(
        activations=Activations(**settings["activations"]) if settings["activations"] else None,
        kv=KeysValues(**settings["kv"]) if settings["kv"] else None,
        divisions=[Division(**one, scales=tensors[f"scales.{number}"]) for number, one in enumerate(settings["divisions"])],
        spans={name.removeprefix("span."): span for name, span in tensors.items() if name.startswith("span.")},
        reassembled=[
            Reassembled(reassembly=Reassembly(**{key: tensors[f"reassembly.{number}.{key}"] for key in FIELDS}), **one)
            for number, one in enumerate(settings["reassembled"])
        ],
        moved=settings["moved"],
    )


def factors(weights: dict[str, Weight], runtime: Runtime) -> dict[str, torch.Tensor]:
    """What inputs are multiplied by before they are rounded, by layer; where they are not, the weights take it up."""
    if runtime.activations is None:
        return {}
    found = {name: getattr(weight, "input_scales", None) for name, weight in weights.items()}
    return {name: scales.float() for name, scales in found.items() if scales is not None}


def as_run(weight: Weight, runtime: Runtime) -> torch.Tensor:
    """A layer's matrix beside those factors, (out, in) float32."""
    if runtime.activations is not None and getattr(weight, "input_scales", None) is not None:
        weight = dataclasses.replace(weight, input_scales=None)
    return weight.dequantize()


def reassembly_of(runtime: Runtime, name: str) -> Reassembly | None:
    """A layer's, where a channel was moved."""
    return next((one.reassembly for one in runtime.reassembled if name in one.layers and one.reassembly.moves), None)
