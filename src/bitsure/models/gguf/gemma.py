"""What Gemma 2 and 3 have of their own: sliding windows, soft caps, and the scale of attention.

A file says the window and the caps. The rest llama.cpp knows by the architecture and its number of blocks.

Reference: llama.cpp's src/models/gemma2.cpp and gemma3.cpp.
"""

from __future__ import annotations

from typing import Any

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import GgufFile

FAMILIES = {"gemma2": "gemma2", "gemma3_text": "gemma3"}  # transformers' → llama.cpp's
PERIODS = {"gemma2": 2, "gemma3": 6}  # every second or sixth block attends to the whole text, the others to the window
BLOCKS_OF_27B = {"gemma2": 46, "gemma3": 62}  # whose scale of attention is not that of the head's size
LOCAL_BASE = 10000.0  # of the rotary positions of Gemma 3's blocks with a window
WINDOW, CAPS = "attention.sliding_window", ("attn_logit_softcapping", "final_logit_softcapping")


def gemma_metadata(architecture: str, config: Any) -> dict[str, Any]:
    """Return the settings of a Gemma 2 or 3 by llama.cpp's keys without the architecture.

    Raises:
        UserError: If llama.cpp computes another model than one with these settings.
    """
    period, caps = PERIODS[architecture], {cap: getattr(config, cap) for cap in CAPS}
    kinds = ["sliding_attention" if (block + 1) % period else "full_attention" for block in range(config.num_hidden_layers)]
    local = config.rope_parameters.get("sliding_attention", {"rope_type": "default", "rope_theta": LOCAL_BASE})
    needed = {
        f"layer_types with full attention in every block of number {period}": config.layer_types == kinds,
        f"query_pre_attn_scalar={attention_scalar(architecture, config)}": config.query_pre_attn_scalar
        == attention_scalar(architecture, config),
        "attention to earlier tokens alone": not getattr(config, "use_bidirectional_attention", False),
        f"plain positions with rope_theta={LOCAL_BASE:g} in the blocks with a window": local["rope_type"] == "default"
        and local["rope_theta"] == LOCAL_BASE,
        " and ".join(CAPS): None not in caps.values() if architecture == "gemma2" else True,
        f"no {' and no '.join(CAPS)}": set(caps.values()) == {None} if architecture == "gemma3" else True,
    }
    if lacking := [name for name, holds in needed.items() if not holds]:
        raise UserError(f"GGUF files of {config.model_type} have {'; '.join(lacking)}. This model differs.")
    return {WINDOW: config.sliding_window} | {cap: float(value) for cap, value in caps.items() if value is not None}


def read_gemma(gguf: GgufFile, config: Any) -> None:
    """Set what transformers' loader leaves at its default: the scale of attention, and Gemma 2's caps of the logits."""
    if gguf.architecture not in PERIODS:
        return
    config.query_pre_attn_scalar = attention_scalar(gguf.architecture, config)
    for cap in CAPS if gguf.architecture == "gemma2" else ():
        setattr(config, cap, gguf.metadata.get(f"{gguf.architecture}.{cap}", getattr(config, cap)))


def attention_scalar(architecture: str, config: Any) -> int:
    """Return the number that llama.cpp divides attention by the square root of."""
    if config.num_hidden_layers == BLOCKS_OF_27B[architecture]:
        return int(config.hidden_size // config.num_attention_heads)
    return int(config.head_dim)
