"""Scaled rotary positions: how GGUF files and transformers' configs say them.

llama.cpp reads linear scaling and YaRN from the metadata, and what each frequency is divided by from the tensor
`rope_freqs.weight`, which its converter writes for Llama 3.1 and later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import GgufFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIVISORS = "rope_freqs.weight"
SCALING = "rope.scaling."
YARN = {  # setting of transformers → key, and what llama.cpp takes without it
    "factor": ("factor", None),
    "original_max_position_embeddings": ("original_context_length", None),
    "beta_fast": ("yarn_beta_fast", 32.0),
    "beta_slow": ("yarn_beta_slow", 1.0),
}


def long_positions(config: Any) -> dict[str, Any]:
    """Return the settings of the positions in blocks that attend to the whole text: Gemma 3's others have their own."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    long: dict[str, Any] = rope.get("full_attention", rope)
    return long


def rope_metadata(config: Any) -> dict[str, Any]:
    """Return the settings of a model's scaled positions by llama.cpp's keys without the architecture; none for plain positions.

    Raises:
        UserError: If llama.cpp does not compute such positions.
    """
    rope = long_positions(config)
    own = rope["rope_type"]
    if own == "default" or frequency_divisors(config) is not None:
        return {}
    if own == "linear":
        return {f"{SCALING}type": "linear", f"{SCALING}factor": float(rope["factor"])}
    known = {"rope_type", "rope_theta", "partial_rotary_factor", *YARN}
    other = sorted(key for key in rope.keys() - known if rope[key] is not None)
    if own != "yarn" or other or rope is not config.rope_parameters:  # llama.cpp has YaRN in all blocks or in none
        raise UserError(
            f"GGUF files are written of models with plain rotary positions or with those scaled as linear, yarn (without "
            f"settings of its attention, and not of Gemma 3) or llama3, and this model's are {own}"
            f"{' with ' + ', '.join(other) if other else ''}."
        )
    values = {key: rope.get(setting, usual) for setting, (key, usual) in YARN.items()}
    values |= {"factor": float(values["factor"]), "original_context_length": int(values["original_context_length"])}
    usual = dict(YARN.values())
    return {f"{SCALING}type": "yarn"} | {f"{SCALING}{key}": value for key, value in values.items() if value != usual[key]}


def frequency_divisors(config: Any) -> NDArray[np.float32] | None:
    """Return what a Llama's scaled positions divide each frequency by, shape (half a head,); None if no such numbers say it."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = long_positions(config)
    if config.model_type not in ("llama", "mistral"):  # llama.cpp's other architectures do not read them
        return None
    if rope["rope_type"] == "longrope":
        same = rope["short_factor"] == rope["long_factor"] and rope.get("attention_factor") == 1
        return np.array(rope["short_factor"], np.float32) if same else None
    if rope["rope_type"] != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = rope["rope_theta"] ** -(np.arange(0, size, 2) / size)
    divisors: NDArray[np.float32] = (plain / scaled.double().numpy()).astype(np.float32)
    return divisors


def read_rope(gguf: GgufFile, config: Any) -> None:
    """Set a config's positions to a file's, where transformers' loader reads them as plain ones."""
    rope = long_positions(config)
    if rope.get("rope_type") != "default":
        return
    get = {key: gguf.metadata.get(f"{gguf.architecture}.{SCALING}{key}") for key in ("type", *dict(YARN.values()))}
    if get["type"] == "linear" and get["factor"]:
        rope |= {"rope_type": "linear", "factor": get["factor"]}
    elif get["type"] == "yarn" and get["factor"] and rope is config.rope_parameters:
        given = {setting: get[key] for setting, (key, _) in YARN.items() if get[key] is not None}
        rope |= {
            "rope_type": "yarn",
            "original_max_position_embeddings": config.max_position_embeddings,
        } | given
    elif gguf.architecture == "llama" and DIVISORS in gguf.tensors:  # any divisors are a case of longrope, and llama3's are one
        divisors = gguf.values(DIVISORS).tolist()
        rope |= {
            "rope_type": "longrope",
            "short_factor": divisors,
            "long_factor": divisors,
            "factor": 1.0,
            "attention_factor": 1.0,
            "original_max_position_embeddings": config.max_position_embeddings,
        }


def positions_agree(gguf: GgufFile, config: Any) -> bool:
    """Return whether a file's divisors of frequencies are those of a model with these settings."""
    own = frequency_divisors(config)
    return own is not None and bool(np.allclose(gguf.values(DIVISORS), own, rtol=1e-4))


def positions_read(gguf: GgufFile, config: Any) -> list[str]:
    """Return the tensors and keys of a file that a config's positions were read from."""
    own = long_positions(config).get("rope_type")
    if own in ("linear", "yarn"):
        return [f"{gguf.architecture}.{SCALING}{key}" for key in ("type", *dict(YARN.values()))]
    return [DIVISORS] if own == "longrope" else []
