"""What a model's files and settings say, and what of it cannot be right or cannot be run here. No weights are loaded."""

from __future__ import annotations

import functools
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CONTEXT = ("max_position_embeddings", "n_positions", "seq_length")  # what configs call it


def check_config(model: ModelSettings, config: Path) -> None:
    """Raise UserError if config.json is not of the model that the settings describe, or that model cannot be run here."""
    said, where = json.loads(config.read_text()), model.repo or model.path
    family = said.get("model_type")
    if model.family is not None and family != model.family:
        raise UserError(
            f"model={model.name}: {where} is of the family {family!r}, not {model.family!r} as model.family says. "
            "Give the right model.repo, or leave model.family out (model=hub model.repo=…)."
        )
    if "auto_map" in said and not model.trust_remote_code and not _is_known(family):
        raise UserError(
            f"model={model.name}: {where} brings Python code of its own, and transformers has none for {family!r}. It is not "
            "run unless you ask for it. Read that code, then add model.trust_remote_code=true."
        )
    if of_transformers() == 4 and "rope_parameters" in said:
        raise UserError(
            f"{config.parent} was saved by transformers 5: transformers 4, which auto-gptq needs, does not find its rotary "
            "positions' settings and would take others. Give the model as it was published, or use .venv/bin/python."
        )


def warn_where_it_differs(model: ModelSettings, config: Path) -> None:
    """Say what config.json says otherwise than the settings; the context it says is the one that is used."""
    said, where = json.loads(config.read_text()), model.repo or model.path
    context, dtype = _context_of(said), said.get("dtype") or said.get("torch_dtype")
    if model.context is not None and context is not None and context != model.context:
        log.warning("%s: its config.json says a context of %d tokens, model.context %d", where, context, model.context)
    if model.full_dtype is not None and dtype is not None and dtype != model.full_dtype:
        log.warning("%s: its config.json says weights in %s, model.full_dtype %s", where, dtype, model.full_dtype)


def check_memory(model: ModelSettings, dtype: str, place: str | None = None) -> None:
    """Raise UserError if the parameters alone are more than all the memory of a device; None: where the model is scored."""
    if model.parameters is None or (place is None and model.device_map is not None):
        return
    import torch

    needed, on = model.parameters * getattr(torch, dtype).itemsize, torch.device(place or scoring_device(model))
    memory = torch.cuda.get_device_properties(on).total_memory if on.type == "cuda" else _main_memory()
    if needed > memory:
        raise UserError(
            f"model={model.name}: {model.parameters:,} parameters in {dtype} are {needed / 2**30:,.1f} GiB, and the {on.type} "
            f"here has {memory / 2**30:,.1f} GiB in all. Ways out: a larger machine; model.dtype=bfloat16, half of float32; "
            "to score, model.device_map=auto spreads them over GPUs, CPU and disk."
        )


def _main_memory() -> int:
    """Bytes of main memory and swap, or what a container may take of them."""
    import psutil

    memory = psutil.virtual_memory().total + psutil.swap_memory().total
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # none, or "max"
        return memory


def _is_known(family: str | None) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Raise UserError if the tokenizer has an id beyond the embedding's rows; fewer ids than rows are said in a warning."""
    config = json.loads((path / "config.json").read_text())
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if rows is None:
        return
    if largest >= rows:
        raise UserError(
            f"{path}: the tokenizer has the id {largest} ({token!r}), but the model's embedding has {rows} rows. "
            "The tokenizer is another model's, or tokens were added to it and not to the model."
        )
    if largest + 1 < rows:
        _warn_of_unused_rows(path, largest, rows)


@functools.cache  # once, however often the model is loaded
def _warn_of_unused_rows(path: Path, largest: int, rows: int) -> None:
    log.warning(
        "%s: the tokenizer's ids end at %d, the embedding has %d rows: %d are never used (padding, or another tokenizer)",
        path,
        largest,
        rows,
        rows - largest - 1,
    )


def scoring_device(model: ModelSettings) -> str:
    """Where the model is scored. Raises UserError if this machine has no such device."""
    import torch

    if model.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = model.device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"model.device={model.device}: torch finds {torch.cuda.device_count()} GPUs here. Leave it out.")
    return model.device


def computing_dtype(model: ModelSettings, path: Path) -> str:
    """What to compute in, by name: "auto" is float32 on a CPU, the type of the published weights on a GPU.

    Half precision is slow on a CPU and moves log-likelihoods there.
    """
    where = scoring_device(model)  # also where the type is given, so that a device that is not there is said early
    if model.dtype != "auto":
        return model.dtype
    return "float32" if where == "cpu" else own_dtype(model, path)


def own_dtype(model: ModelSettings, path: Path) -> str:
    """The type of the published weights, as far as settings or checkpoint say."""
    config = json.loads((path / "config.json").read_text())
    return model.full_dtype or config.get("dtype") or config.get("torch_dtype") or "float32"


def context_length(path: Path) -> int | None:
    """The longest input the model was made for, in tokens; None if its config does not say."""
    return _context_of(json.loads((path / "config.json").read_text()))


def _context_of(config: dict) -> int | None:
    return next((config[key] for key in CONTEXT if key in config), None)


def of_transformers() -> int:
    """The major version: 4 in auto-gptq's environment, else 5."""
    return int(version("transformers").split(".")[0])
