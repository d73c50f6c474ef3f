"""Writing a GGUF file that llama.cpp loads: the header of a transformers model, and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.base.errors import UserError
from bitsure.models.gguf.gemma import FAMILIES, gemma_metadata
from bitsure.models.gguf.rotary import long_positions, rope_metadata

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
} | FAMILIES  # transformers' → llama.cpp's
SETTINGS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
}


def architecture_of(config: Any) -> str:
    """Return llama.cpp's name of a model's architecture.

    Raises:
        UserError: If files of it are not written, or not with these settings.
    """
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"GGUF files are written of {', '.join(ARCHITECTURES)}, and this model is of the family {config.model_type}."
        )
    if getattr(config, "attention_bias", False):
        raise UserError("GGUF files are written of attention without biases (attention_bias), but for qwen2's.")
    if getattr(config, "mlp_bias", False):
        raise UserError("GGUF files are written of models whose MLPs have no biases, and this model's have (mlp_bias).")
    usual = "gelu_pytorch_tanh" if config.model_type in FAMILIES else "silu"
    own = getattr(config, "hidden_activation", None) or config.hidden_act
    if own != usual:
        raise UserError(
            f"GGUF files of {config.model_type} are written with the activation {usual}, and this model's is {own}."
        )
    return ARCHITECTURES[config.model_type]


def model_metadata(config: Any) -> dict[str, Any]:
    """Return the metadata that describe a model's shape. Raises UserError as `architecture_of` and `rope_metadata`."""
    architecture = architecture_of(config)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    settings = {key: getattr(config, attribute) for key, attribute in SETTINGS.items()}
    settings |= {"rope.freq_base": float(long_positions(config)["rope_theta"]), "rope.dimension_count": size}
    settings |= {"attention.key_length": size, "attention.value_length": size} | rope_metadata(config)
    settings |= gemma_metadata(architecture, config) if config.model_type in FAMILIES else {}
    return {f"{architecture}.{key}": value for key, value in settings.items()}


def write_gguf(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[NDArray[Any], GGMLQuantizationType]]
) -> None:
    """Write a file.

    Args:
        path: The file.
        architecture: llama.cpp's name of it.
        metadata: Key → bool, whole number, number, text, or a list of texts or whole numbers.
        tensors: Name → the rows of a tensor as they are stored, and their type.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    add: dict[type, Callable[..., None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in metadata.items():
        add[type(value)](key, value)
    for name, (rows, kind) in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(rows), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
