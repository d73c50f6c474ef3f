"""How large a model is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base.files import write_text
from bitsure.base.store import Store
from bitsure.models.load import empty_model
from bitsure.models.locate import Source
from bitsure.models.weight_files import bytes_on_disk

if TYPE_CHECKING:
    from torch import nn

KEEPS_NOTHING = {"linear_attention", "conv", "moe", "mlp"}  # of each token: kinds of layers in transformers' configs


@dataclass(frozen=True)
class ModelSize:
    """The size of a full-precision model."""

    parameters: int
    """Parameters, a tied one counted once."""
    bytes_on_disk: int
    """Bytes of the weight files, or of the GGUF file."""


def measure_size(source: Source, store: Store) -> ModelSize:
    """Return the size of a model; the store keeps the count of parameters, since counting takes the model's modules."""

    def fill(entry: Path) -> None:
        model = empty_model(source.path, source.settings.trust_remote_code)
        write_text(entry / "parameters.json", json.dumps(parameters_of(model)))

    entry = store.ensure("parameters", {"model": source.fingerprint}, fill, to_read=True)
    parameters = int(json.loads((entry / "parameters.json").read_text(encoding="utf-8")))
    return ModelSize(parameters, bytes_on_disk(source.path))


def parameters_of(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def keys_values_of(model: nn.Module, in_transformers: bool = False, gpus: int = 1) -> int:
    """Return how many numbers the keys and values of one token are at the most, in all layers of a transformers model.

    A layer that looks back over a window is counted as if it kept every token, and one whose config does not say that it keeps
    nothing of a token, as a state-space layer, is taken for attention.
    MiMo V2's layers with a window have twice the heads that its config names: of a prompt not much longer than the window they
    keep more.

    Args:
        model: The model's modules; their weights are not needed.
        in_transformers: Whether transformers keeps them, whose Falcon repeats those of a group for each of its heads.
        gpus: Among how many GPUs vLLM shares the heads; each has one at least.

    Returns:
        The numbers, those of one of the GPUs.
    """
    return sum(_numbers(layer, in_transformers, gpus) for layer in _layers(_text_config(model)))


def head_widths(model: nn.Module) -> set[int]:
    """Return the widths of the heads of a transformers model; of most models they are one."""
    return {_heads_and_width(layer, in_transformers=True)[1] for layer in _layers(_text_config(model))}


def _layers(config: Any) -> list[Any]:
    """Return the config of each layer that has keys and values of its own; its heads may differ from other layers'.

    Of a model of several stacks, as BLT is, these are the layers of all.
    """
    if not hasattr(config, "num_hidden_layers"):
        return [layer for name in config.sub_configs for layer in _layers(getattr(config, name))]
    layers = list(getattr(config, "per_layer_config", [])) or [config] * config.num_hidden_layers  # transformers 4 has no list
    kinds = getattr(config, "layer_types", None) or repeat("")
    sharing = getattr(config, "kv_sharing_modes", None) or repeat("")  # Gemma: the last layers reuse what earlier ones keep.
    return [
        layer
        for layer, kind, mode in zip(layers, kinds, sharing, strict=False)  # layers come first: repeat has no end
        if getattr(layer, "num_attention_heads", None) and kind not in KEEPS_NOTHING and mode != "reuse"
    ]


def _numbers(config: Any, in_transformers: bool, gpus: int) -> int:
    """Return how many numbers a layer keeps of a token, on one of the GPUs; an indexer keeps one more key for all heads."""
    indexer: int = getattr(config, "index_head_dim", None) or getattr(config, "indexer_head_dim", None) or 0
    if latent := getattr(config, "kv_lora_rank", None):  # one vector for all heads, and the rotary part of their keys
        return int(latent + config.qk_rope_head_dim + indexer)
    heads, width = _heads_and_width(config, in_transformers)
    return 2 * max(1, heads // gpus) * width + indexer


def _text_config(model: nn.Module) -> Any:
    return model.config.get_text_config()  # type: ignore[union-attr, operator]  # a transformers model's


def _heads_and_width(config: Any, in_transformers: bool) -> tuple[int, int]:
    """Return the number of heads that have keys and values of their own in a layer, and their width."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if config.model_type != "falcon":
        return getattr(config, "num_key_value_heads", None) or heads, width
    if config.new_decoder_architecture:
        return heads if in_transformers else config.num_kv_heads, width
    return 1 if config.multi_query else heads, width


def width_of(model: nn.Module) -> int:
    """Return the hidden size of a transformers model (of its text part); its embeddings' where the config names none."""
    width = getattr(_text_config(model), "hidden_size", None)
    return int(width or model.get_input_embeddings().weight.shape[-1])  # type: ignore[operator]
