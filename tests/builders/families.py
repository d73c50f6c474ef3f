"""A small random model of each decoder family: learned, rotary and ALiBi positions, fused and grouped heads, Conv1D."""

from __future__ import annotations

BASE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
}
GROUPED = BASE | {"num_key_value_heads": 2}
FALCON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "new_decoder_architecture": False,
}
FAMILIES = {
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 96} | {k: v for k, v in BASE.items() if k != "intermediate_size"},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 200},
    "mixtral": GROUPED | {"num_local_experts": 4},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gpt2": {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": BASE,
    "phi": BASE,
    "gemma": GROUPED | {"head_dim": 16},
    "stablelm": GROUPED,
    "falcon": FALCON | {"alibi": False},
    "bloom": {"vocab_size": 300, "hidden_size": 64, "n_layer": 2, "n_head": 4},
}

UNEQUAL = GROUPED | {  # of gemma4_text, whose layers have heads of two widths
    "layer_types": ["sliding_attention", "full_attention"],
    "head_dim": 16,
    "global_head_dim": 32,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 300,
}

SPARSE = GROUPED | {"num_experts_per_tok": 2}
MIXTURES = {  # every way in which transformers keeps experts: plain, with shared ones, transposed and interleaved with biases
    "mixtral": SPARSE | {"num_local_experts": 4},
    "qwen2_moe": SPARSE | {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
    "olmoe": SPARSE | {"num_experts": 4, "eos_token_id": 2},
    "gpt_oss": SPARSE | {"num_local_experts": 4, "head_dim": 16},
}


def build(family: str, **settings):
    """A random model of a family, its weights far from uniform, so that a wrong mask or position shows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 4
    return model
