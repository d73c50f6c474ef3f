"""GGUF files that others quantized, paired with their full-precision parent: finding, checking and reading them."""

from __future__ import annotations

import logging
from math import isclose
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import UserError
from bitsure.base.store import Store, hash_each, hash_files
from bitsure.config.model import ModelSettings
from bitsure.models.gguf.architecture import (
    check_architecture,
    missing_tensors,
    row_order,
    tensor_names,
    values_as_in_model,
)
from bitsure.models.gguf.gguf_header import GgufFile, read_gguf
from bitsure.models.gguf.rotary import DIVISORS, long_positions, positions_agree
from bitsure.models.gguf.vocabulary import check_same_tokenizer
from bitsure.models.locate import Source, find_gguf
from bitsure.results.gguf import FLOATS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import Weight

log = logging.getLogger(__name__)

BY_KERNELS = ("activations (llama.cpp's kernels for blocks round them to 8 bits)",)  # what a GGUF file's model rounds besides


def locate_gguf(settings: ModelSettings, hub_mirror: str | None, store: Store | None) -> Source:
    """Return a GGUF file as a checkpoint, its header read and checked.

    Raises:
        UserError: As `find_gguf` and `read_gguf`, and for an architecture that transformers does not load.
    """
    file = find_gguf(settings, hub_mirror, store)
    path = file.path
    check_architecture(read_gguf(path))
    hashes = ((str(path.resolve()), hash_each([path], store)[0]),)
    return Source(settings.name or path.name, path, file.commit, hash_files([path], store), settings, hashes)


def check_gguf(checkpoint: Source, model: nn.Module, parent: Source) -> None:
    """Raise UserError if a GGUF file is not of this model, by its header, or its tokenizer is not the parent's.

    Args:
        checkpoint: The file.
        model: The full-precision model's modules, without weights.
        parent: The full-precision model's files.
    """
    from bitsure.quantize.walk.mixtures import expert_lists
    from bitsure.quantize.walk.targets import block_linears

    if expert_lists(model):
        raise UserError(
            f"{checkpoint.path}: {parent.name} is a mixture of experts, which GGUF files join into tensors that are not read "
            "expert by expert. Checkpoints in the layouts of docs/quantizers.md are read."
        )
    gguf = read_gguf(checkpoint.path)
    names = tensor_names(gguf, model)
    _check_heads(gguf, model, parent.name)
    _check_shapes(gguf, names, model, parent.name)
    own = {hf: gguf.tensors[name] for name, hf in names.items() if name in gguf.tensors}
    layers = {own[f"{layer}.weight"].type.name for layer in block_linears(model)}
    if layers <= FLOATS:
        raise UserError(
            f"{checkpoint.path} quantizes no layer: they are {' and '.join(sorted(layers))}. As the full-precision model it is "
            "read with model=gguf model.path=FILE; quant=float16 and quant=bfloat16 measure such rounding."
        )
    check_same_tokenizer(gguf, parent.load_tokenizer(), parent.name)
    for line in unused_parts(gguf, model, parent.name):
        log.warning("%s: %s", checkpoint.name, line)


def unused_parts(gguf: GgufFile, model: nn.Module, parent: str) -> list[str]:
    """Return what llama.cpp computes with and is not used here, a sentence each.

    Args:
        gguf: A file that was quantized from the model.
        model: The full-precision model, with or without weights.
        parent: Its name.
    """
    names, config, lines = tensor_names(gguf, model), model.config, []
    same = [DIVISORS] if DIVISORS in gguf.tensors and positions_agree(gguf, config) else []
    if dropped := [name for name in gguf.tensors if name not in (*names, *same)]:
        lines.append(f"tensors without a place in {parent} are not used: {', '.join(dropped)}")
    rope = long_positions(config)
    settings: dict[str, Any] = {
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.scaling.type": {"linear": "linear", "yarn": "yarn"}.get(rope.get("rope_type", ""), "none"),
        "rope.scaling.factor": rope.get("factor"),
    }
    for key, own in settings.items():
        there: Any = gguf.metadata.get(f"{gguf.architecture}.{key}")
        if None not in (there, own) and not (there == own if isinstance(own, str) else isclose(there, own, rel_tol=1e-5)):
            lines.append(f"its {key} is {there}; that of {parent}, {own}, counts")
    return lines


def _check_heads(gguf: GgufFile, model: nn.Module, parent: str) -> None:
    """Raise UserError if the file counts other heads than the parent: rows would be put in another order."""
    for key, attribute in (("head_count", "num_attention_heads"), ("head_count_kv", "num_key_value_heads")):
        there, here = gguf.metadata.get(f"{gguf.architecture}.attention.{key}"), getattr(model.config, attribute, None)
        if isinstance(there, int) and here not in (None, there):
            raise UserError(f"{gguf.path} is not quantized from {parent}: its attention.{key} is {there}, {here} here.")


def _check_shapes(gguf: GgufFile, names: dict[str, str], model: nn.Module, parent: str) -> None:
    """Raise UserError if tensors of the model are missing in the file, or have other shapes there."""
    from bitsure.quantize.walk.targets import block_linears, matrix

    if missing := missing_tensors(gguf, names, model):
        raise UserError(
            f"{gguf.path} is not quantized from {parent}: it lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}."
        )
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    shapes |= {f"{name}.weight": matrix(layer).shape for name, layer in block_linears(model).items()}
    for name in [name for name in gguf.tensors if name in names]:
        there, here = gguf.tensors[name].shape, tuple(shapes[names[name]])
        if [size for size in there if size > 1] != [size for size in here if size > 1]:
            raise UserError(f"{gguf.path} is not quantized from {parent}: {name} has the shape {there}, {here} here.")


def read_blocks(gguf: GgufFile, model: nn.Module) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """Return the matrices of a file that have blocks, undecoded, by the layers' names in the model, and its other tensors.

    Args:
        gguf: The file.
        model: The full-precision model.
    """
    import torch

    from bitsure.quantize.weights import GgufWeight

    weights: dict[str, Weight] = {}
    others: dict[str, torch.Tensor] = {}
    for name, hf in tensor_names(gguf, model).items():
        tensor = gguf.tensors.get(name)
        if tensor is None:
            continue
        if tensor.type.name in FLOATS or len(tensor.shape) != 2 or not hf.endswith(".weight"):
            others[hf] = torch.from_numpy(values_as_in_model(gguf, name, model))
        else:
            blocks = torch.from_numpy(gguf.blocks(name)[row_order(gguf, name, model)])
            weights[hf.removesuffix(".weight")] = GgufWeight(blocks, tensor.type.value)
    return weights, others
