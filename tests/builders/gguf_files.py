"""GGUF files of small Llama models, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def save_llama(path: Path, width: int = 64, **settings):
    """A small random Llama with a byte-level tokenizer, as a Hugging Face directory; some heads share keys and values."""
    from tests.builders.families import GROUPED, build
    from tests.builders.tokenizers import byte_tokenizer

    tokenizer = byte_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width, "rms_norm_eps": 1e-5}
    model = build("llama", **GROUPED | sizes | {"tie_word_embeddings": True} | settings)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model


def llama_tensors(model) -> dict:
    """The tensors of a Llama by llama.cpp's names, the rows of queries and keys in its order; float32 arrays."""
    config, state = model.config, {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    tensors = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for block in range(config.num_hidden_layers):
        for name, own in LAYERS.items():
            values = state[f"model.layers.{block}.{own}.weight"]
            if name in heads:
                shape = (heads[name], 2, len(values) // heads[name] // 2, -1)
                values = values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
            tensors[f"blk.{block}.{name}.weight"] = values
    return tensors


def write_llama(
    path: Path, model, tokenizer, kind: str | Callable[[str], str] = "F16", tensors: dict | None = None, **metadata
) -> Path:
    """Write a model's GGUF file; `kind` is the type of matrices, or returns it by their names. Norms stay F32.

    `tensors` are those of `llama_tensors` where others are wanted; `metadata` adds or replaces keys (`_` for a dot), or None
    leaves one out.
    """
    import gguf
    import libgguf

    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (header(model, tokenizer) | {key.replace("__", "."): value for key, value in metadata.items()}).items():
        _add(writer, key, value)
    for name, values in (tensors or llama_tensors(model)).items():
        own = "F32" if values.ndim == 1 else kind if isinstance(kind, str) else kind(name)
        ggml = gguf.GGMLQuantizationType[own]
        writer.add_tensor(name, libgguf.quantize_rows(values, ggml), raw_dtype=ggml)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_decoded(source: Path, path: Path) -> Path:
    """Write a GGUF file's model again with every tensor in F32, all else as it is."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def header(model, tokenizer) -> dict:
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    texts = {id_: text for text, id_ in tokenizer.get_vocab().items()}
    special = {token["content"] for token in backend["added_tokens"]}
    return {
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "llama.rope.freq_base": config.rope_parameters["rope_theta"],
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [texts[id_] for id_ in range(len(texts))],
        "tokenizer.ggml.token_type": [3 if texts[id_] in special else 1 for id_ in range(len(texts))],
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
    }


def _add(writer, key: str, value) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](key, value)
