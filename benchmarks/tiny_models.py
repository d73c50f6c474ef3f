"""A small random model of every causal class of transformers: its default config with all sizes made small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 300
LAYERS = 2
SCALE = 4  # times the initial weights, so that a wrong mask or position shows

# What config classes call a size, by what it becomes.
SIZES = {
    VOCABULARY: "vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size audio_vocab_size "
    "shape_vocab_size pronunciation_vocab_size encoder_hash_byte_group_vocab",
    256: "max_position_embeddings n_positions n_ctx max_seq_len model_max_length seq_length context_length mem_len "
    "max_target_positions max_source_positions original_max_position_embeddings",
    200: "sliding_window sliding_window_size attention_window_size attention_chunk_size window_size local_attention "
    "local_attention_window_len keep_window_size",
    96: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dim_ff dff d_inner ffn_hidden_size d_ff mlp_dim "
    "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size shared_intermediate_size "
    "intermediate_size_mlp expert_ffn_hidden_size moe_shared_expert_intermediate_size dense_intermediate_size "
    "feed_forward_size",
    64: "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim embedding_dim input_embedding_size "
    "output_embedding_size hidden_size_global lru_width backbone_hidden_size attention_hidden_size router_hidden_size "
    "prompt_mid_dim mamba_d_ssm ple_embed_dim shape_embed_dim pronunciation_embed_dim adapter_in_dim adapter_out_dim "
    "adapter_input_size base_channels output_channels out_hidden_size ext_pw_out_channel depthwise_separable_out_channel "
    "nemo_conv_channels",
    24: "qk_head_dim",
    16: "head_dim v_head_dim qk_nope_head_dim kv_lora_rank q_lora_rank index_head_dim linear_key_head_dim "
    "linear_value_head_dim linear_head_dim swa_head_dim global_head_dim mamba_d_head mamba_head_dim d_head "
    "dim_head kv_channels o_lora_rank hidden_size_per_layer_input mamba_chunk_size attention_head_size lsh_attn_chunk_length "
    "local_attn_chunk_length d_kv",
    8: "mamba_n_heads state_size mamba_d_state ssm_state_size laurel_rank gated_norm_rank mamba_dt_rank time_step_rank "
    "qk_rope_head_dim hc_lowrank rotary_dim d_rel adapter_rank index_topk index_block_size num_centroids",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads "
    "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads index_n_heads linear_num_value_heads "
    "linear_num_heads num_experts n_routed_experts num_local_experts moe_num_experts zero_expert_num conf_num_attention_heads "
    "mamba_num_heads heads_per_ngram o_groups",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks num_decoder_layers "
    "num_encoder_layers num_layers_per_stack depth max_window_layers sliding_window_pattern attn_layer_period "
    "expert_layer_period no_rope_layer_interval layer_group_size global_attn_every_n_layers n_mamba_heads linear_num_key_heads "
    "hc_count hc_mult altup_num_inputs num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k ngram_size "
    "num_key_value_heads kv_n_heads num_kv_heads swa_num_key_value_heads index_topk_blocks n_groups "
    "n_layers_per_attn_res_block",
    1: "n_group topk_group num_expert_group first_k_dense_replace attn_layer_offset mamba_ngroups num_dense_layers "
    "moe_layer_start_index moe_layer_end_index",
}
SIZE_OF = {name: size for size, names in SIZES.items() for name in names.split()}
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks")

# Families whose default config leaves out what a model needs, or whose sizes depend on each other.
TWICE = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
HYBRID = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2}
WINDOWED = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 24,
    "swa_qk_nope_head_dim": 16,
    "swa_v_head_dim": 16,
}
EXPERTS = {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
INDEXER = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 64}
OTHERS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"vocab_size": VOCABULARY},
    "blt_local_encoder": {"vocab_size": VOCABULARY},
    "blt_patcher": {"vocab_size": VOCABULARY},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8}},
    "deepseek_v2": EXPERTS,
    "dots1": EXPERTS | {"num_local_experts": 4},
    "dots3_note_text": WINDOWED,
    "gemma3n_text": TWICE | {"intermediate_size": [96] * 4, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_unified_text": TWICE,
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "llama4_text": {"moe_layers": [1]},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": INDEXER | {"indexer_compress_ratio": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 48]},
    "xmod": {"default_language": "en_XX"},
    "zamba": HYBRID | {"attention_hidden_size": 128, "attention_head_dim": 32},
    "zamba2": HYBRID | {"mamba_headdim": 64, "attention_hidden_size": 128, "attention_head_dim": 32},
}


# Of a config class that refuses its own defaults: what its parts need.
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 0}
    }
}


def small_config(family: str) -> PreTrainedConfig:
    """Return a small config of a family, by its `model_type`."""
    from transformers import CONFIG_MAPPING

    parts = PARTS.get(family, {})
    small = _small(CONFIG_MAPPING[family](**parts))
    for name, part in parts.items():
        small[name] |= part
    config: PreTrainedConfig = CONFIG_MAPPING[family](**small)
    return config


def build_small(family: str) -> PreTrainedModel:
    """Return a small random model of a family in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= SCALE
    return model


def _small(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the settings of a config whose sizes are small, those of its parts too."""
    from transformers import PreTrainedConfig

    values = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    depth = next((values[name] for name in DEPTHS if isinstance(values.get(name), int)), 0)
    layers = _kinds_of_layers(values, depth)
    small: dict[str, Any] = {"model_type": config.model_type} if config.model_type else {}
    if "is_decoder" in values:
        small["is_decoder"] = True
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            small[name] = _small(value)
        elif isinstance(value, list | tuple) and len(value) == depth > 1:
            small[name] = [SIZE_OF.get(name, value[i]) for i in layers]
        elif name.endswith("_token_id") and value is not None:
            small[name] = 2
        elif name in DEPTHS:
            small[name] = len(layers)
        elif isinstance(value, int) and not isinstance(value, bool) and 0 < SIZE_OF.get(name, 0) < value:
            small[name] = SIZE_OF[name]
    return small | _heads(values) | OTHERS.get(config.model_type, {})


def _heads(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of attention that depend on each other."""
    heads = {}
    if "head_dim" in values:
        heads["head_dim"] = SIZE_OF["qk_rope_head_dim" if "qk_rope_head_dim" in values else "head_dim"]
    if values.get("num_key_value_heads", 0) in (None, values.get("num_attention_heads")):
        heads["num_key_value_heads"] = SIZE_OF["num_attention_heads"]
    return heads


def _kinds_of_layers(values: Mapping[str, Any], depth: int) -> list[int]:
    """Return the first layer of each kind, in their order, and of layers of one kind the first LAYERS."""
    lists = [value for value in values.values() if isinstance(value, list | tuple) and len(value) == depth > 1]
    named = [value for value in lists if len(set(map(str, value))) < depth / 2]
    kinds = [tuple(str(value[i]) for value in named) for i in range(depth)]
    first = [i for i, kind in enumerate(kinds) if kind not in kinds[:i]]
    others = [i for i in range(max(depth, LAYERS)) if i not in first]
    return sorted(first + others[: max(0, LAYERS - len(first))])
