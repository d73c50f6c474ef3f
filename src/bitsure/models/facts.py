"""What a model's files and settings say, and what of it cannot be right or cannot run here. No weights are loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import UserError
from bitsure.base.json_files import read_object
from bitsure.base.resources import memory_limits
from bitsure.base.versions import installed_version
from bitsure.config.model import ModelSettings

log = logging.getLogger(__name__)

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length")  # what configs call the context


def check_config(model: ModelSettings, config: Path) -> None:
    """Check that a config.json is of the model that the settings describe, and that the model can run here.

    Raises:
        UserError: If not.
    """
    content, where = read_object(config), model.repo or model.path
    family = content.get("model_type")
    if model.family is not None and family != model.family:
        raise UserError(
            f"model={model.name}: {where} is of the family {family!r}, not {model.family!r} as model.family says. "
            "Give the right model.repo, or leave model.family out (model=hub model.repo=…)."
        )
    if "auto_map" in content and not model.trust_remote_code and not _is_known(family):
        raise UserError(
            f"model={model.name}: {where} brings Python code of its own, and transformers has none for {family!r}. It is not "
            "run unless you ask for it. Read that code, then add model.trust_remote_code=true."
        )
    if transformers_major_version() == 4 and "rope_parameters" in content:
        raise UserError(
            f"{config.parent} was saved by transformers 5: transformers 4, which auto-gptq needs, does not find its rotary "
            "positions' settings and would take others. Give the model as it was published, or use .venv/bin/python."
        )


def warn_about_config(model: ModelSettings, config: Path) -> None:
    """Warn if config.json and the settings disagree on the context, for which config.json counts, or on the weights' type."""
    content, where = read_object(config), model.repo or model.path
    context, dtype = _context_of(content), content.get("dtype") or content.get("torch_dtype")
    if model.context is not None and context is not None and context != model.context:
        log.warning("%s: its config.json says a context of %d tokens, model.context %d", where, context, model.context)
    if model.full_dtype is not None and dtype is not None and dtype != model.full_dtype:
        log.warning("%s: its config.json says weights in %s, model.full_dtype %s", where, dtype, model.full_dtype)


def check_memory(model: ModelSettings, dtype: str, device: str | None = None, other_copies: Sequence[str] = ()) -> None:
    """Check that the parameters alone fit into the memory of a device.

    Args:
        model: The settings; nothing is checked if they do not say the number of parameters.
        dtype: The name of the type to compute in.
        device: The device; None: where the model is scored.
        other_copies: The type of each other copy of the model that is in its memory at the same time.

    Raises:
        UserError: If the parameters are larger than all of the device's memory.
    """
    if model.parameters is None or (device is None and model.device_map is not None):
        return
    import torch

    types, on = (dtype, *other_copies), torch.device(device or scoring_device(model))
    needed = model.parameters * sum(getattr(torch, name).itemsize for name in types)
    memory = int(torch.cuda.get_device_properties(on).total_memory) if on.type == "cuda" else _main_memory()
    if needed > memory:
        raise UserError(
            f"model={model.name}: {model.parameters:,} parameters in {' and again in '.join(types)} are "
            f"{binary_size(needed)}, and the {on.type} here has {binary_size(memory)} in all. Ways "
            "out: a larger machine; model.dtype=bfloat16, half of float32; to score, model.device_map=auto spreads them over "
            "GPUs, CPU and disk."
        )


def _main_memory() -> int:
    """Return the bytes of main memory and swap, or the part of them that a container or `ulimit` allows."""
    import psutil

    memory = int(psutil.virtual_memory().total + psutil.swap_memory().total)
    memory = min([memory, *memory_limits().values()])
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no such file, or "max"
        return memory


def _is_known(family: str | None) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def scoring_device(model: ModelSettings) -> str:
    """Return the device that the model is scored on, such as cuda:1.

    Raises:
        UserError: If this machine has no such device.
    """
    import torch

    if model.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = model.device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"model.device={model.device}: torch finds {torch.cuda.device_count()} GPUs here. Leave it out.")
    return model.device


def computing_dtype(model: ModelSettings, path: Path) -> str:
    """Return the name of the type to compute in.

    `model.dtype=auto` is float32 on a CPU, where half precision is slow and moves log-likelihoods; on a GPU it is the published
    weights' own type.

    Raises:
        UserError: If this machine has no such device, whether or not the type depends on it.
    """
    device = scoring_device(model)
    if model.dtype != "auto":
        return model.dtype
    return "float32" if device == "cpu" else own_dtype(model, path)


def own_dtype(model: ModelSettings, path: Path) -> str:
    """Return the type of the published weights, as far as settings or checkpoint say, otherwise float32."""
    config = read_object(path / "config.json")
    return str(model.full_dtype or config.get("dtype") or config.get("torch_dtype") or "float32")


def context_length(path: Path) -> int | None:
    """Return the longest input that the model was made for, in tokens; None if its config does not say."""
    return _context_of(read_object(path / "config.json"))


def is_mixture(path: Path) -> bool:
    """Return whether the config of a model names several experts."""
    groups: list[object] = [read_object(path / "config.json")]
    for group in groups:  # and the groups inside it, which are added on the way
        if isinstance(group, dict):
            groups += group.values()
            if any("expert" in name and isinstance(value, int) and value > 1 for name, value in group.items()):
                return True
    return False


def vocabulary_size(path: Path) -> int | None:
    """Return how many tokens a model gives probabilities to; None if its config does not say."""
    config = read_object(path / "config.json")
    size: int | None = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return size


def _context_of(config: Mapping[str, Any]) -> int | None:
    return next((config[key] for key in CONTEXT_KEYS if key in config), None)


def transformers_major_version() -> int:
    """Return transformers' major version: 4 in auto-gptq's environment, otherwise 5."""
    return int(installed_version("transformers").split(".")[0])
