"""Writing a GGUF file that llama.cpp loads: the header of a transformers model, its vocabulary, and its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.base.errors import UserError
from bitsure.models.gguf.vocabulary import GPT_2, PREFIX, SINGLE_DIGITS, WHOLE_WORDS

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # transformers' → llama.cpp's
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens
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
    rope = config.rope_parameters["rope_type"]
    if rope != "default":
        raise UserError(f"GGUF files are written of models with plain rotary positions, and this model's are scaled ({rope}).")
    if getattr(config, "attention_bias", False):
        raise UserError("GGUF files are written of attention without biases (attention_bias), but for qwen2's.")
    if getattr(config, "mlp_bias", False):
        raise UserError("GGUF files are written of models whose MLPs have no biases, and this model's have (mlp_bias).")
    if config.hidden_act != "silu":
        raise UserError(f"GGUF files are written of models with the activation silu, and this one's is {config.hidden_act}.")
    return ARCHITECTURES[config.model_type]


def model_metadata(config: Any) -> dict[str, Any]:
    """Return the metadata that describe a model's shape. Raises UserError as `architecture_of`."""
    architecture = architecture_of(config)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    settings = {key: getattr(config, attribute) for key, attribute in SETTINGS.items()}
    settings |= {"rope.freq_base": float(config.rope_parameters["rope_theta"]), "rope.dimension_count": size}
    settings |= {"attention.key_length": size, "attention.value_length": size}
    return {f"{architecture}.{key}": value for key, value in settings.items()}


def vocabulary_metadata(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, Any]:
    """Return the metadata of a tokenizer.

    Args:
        tokenizer: A byte-level tokenizer.
        rows: The rows of the model's embedding; those that no token has are called padding.

    Raises:
        UserError: If the tokenizer is of another kind, or cuts text into words by a rule that llama.cpp has no name for.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "unknown"}}
    model, added = content["model"], {token["id"]: token["special"] for token in content.get("added_tokens", ())}
    rule = _rule_for_words(content)
    texts = {id_: text for text, id_ in tokenizer.get_vocab().items()}
    kinds = {id_: CONTROL if special else USER_DEFINED for id_, special in added.items()}
    metadata = {
        "model": "gpt2",
        "pre": rule,
        "tokens": [texts.get(id_, f"[PAD{id_}]") for id_ in range(rows)],
        "token_type": [kinds.get(id_, NORMAL) if id_ in texts else UNUSED for id_ in range(rows)],
        "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        "add_bos_token": tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id,
    }
    roles = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {f"{role}_token_id": getattr(tokenizer, f"{own}_token_id") for role, own in roles.items()}
    template = {"tokenizer.chat_template": tokenizer.chat_template} if isinstance(tokenizer.chat_template, str) else {}
    return {f"{PREFIX}{key}": value for key, value in (metadata | ids).items() if value is not None} | template


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


def _rule_for_words(content: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the rule by which a tokenizer cuts text into words (`tokenizer.ggml.pre`)."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = content.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    byte_level = bool(steps) and steps[-1].get("type") == "ByteLevel" and not steps[-1].get("add_prefix_space")
    if content["model"]["type"] == "BPE" and byte_level and len(steps) <= 2:
        if len(steps) == 1 and steps[0]["use_regex"]:
            return GPT_2[0]
        if steps[0].get("type") == "Digits" and steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return SINGLE_DIGITS[0]
        split, whole = steps[0].get("pattern", {}).get("Regex"), bool(content["model"].get("ignore_merges"))
        for rule, pattern in GGUF_PRE_TOKENIZER_SPLITS.items():
            if split == pattern and (rule in WHOLE_WORDS) == whole:
                return str(rule)
    raise UserError(
        "GGUF files are written of byte-level tokenizers whose rule for words llama.cpp has a name for: GPT-2's, SmolLM's, "
        "Llama 3's, Qwen's and the like. This model's tokenizer is another."
    )
