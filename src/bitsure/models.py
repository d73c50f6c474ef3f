"""Where a model's files are, what identifies them, and loading them."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure import hub
from bitsure.config import Model
from bitsure.errors import UserError
from bitsure.store import hash_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# what a model directory is loaded from, and so what it is identified by
FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "*.bin", "*.py")
CONTEXT = ("max_position_embeddings", "n_positions", "seq_length")  # what configs call it


@dataclass(frozen=True)
class Source:
    """A full-precision model's files on this machine, and the settings it was found by."""

    name: str
    path: Path
    revision: str | None  # the hub's commit; None for a directory
    fingerprint: str  # of the files' content, or the hub's commit
    settings: Model


def locate(model: Model, hub_mirror: str | None, section: str = "model") -> Source:
    """Find the model's files (mirror, cache, hub) before anything heavy is loaded; section: of the config, for messages.

    Raises UserError if they are not to be had or not whole, are not what the settings say of them, are too large for this
    machine, or are not for this version of transformers.
    """
    if model.path is not None:
        found = hub.Found(Path(model.path), None)
        if not found.path.is_dir():
            raise UserError(f"{section}.path={model.path}: no such directory (looked at {found.path.absolute()}).")
    else:
        found = hub.find_model(
            model.repo, model.revision, hub_mirror, model.gated, model.trust_remote_code, lambda file: _before_weights(model, file)
        )
    path = found.path
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json: {section}.path wants a Hugging Face model directory.")
    check_config(model, path / "config.json")
    if not weight_files(path):
        raise UserError(f"{path} holds no weights: expected *.safetensors (or pytorch_model*.bin).")
    if missing := hub.missing_shards(path):
        raise UserError(f"{path} lacks {', '.join(missing[:5])}, which its index names: bring the rest of the model.")
    fingerprint = f"{model.repo}@{found.commit}" if found.commit else _content(path)
    return Source(model.name, path, found.commit, fingerprint, model)


def _before_weights(model: Model, config: Path) -> None:
    check_config(model, config)
    check_memory(model, computing_dtype(model, config.parent))


def check_config(model: Model, config: Path) -> None:
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
            f"model={model.name}: {where} brings Python code of its own, and transformers has none for {family!r}. It is not run "
            "unless you ask for it. Read that code, then add model.trust_remote_code=true."
        )
    if _of_transformers() == 4 and "rope_parameters" in said:
        raise UserError(
            f"{config.parent} was saved by transformers 5: transformers 4, which auto-gptq needs, does not find its rotary "
            "positions' settings and would take others. Give the model as it was published, or use .venv/bin/python."
        )
    context, dtype = _context_of(said), said.get("dtype") or said.get("torch_dtype")
    if model.context is not None and context is not None and context != model.context:
        log.warning("%s: its config.json says a context of %d tokens, model.context %d", where, context, model.context)
    if model.full_dtype is not None and dtype is not None and dtype != model.full_dtype:
        log.warning("%s: its config.json says weights in %s, model.full_dtype %s", where, dtype, model.full_dtype)


def check_memory(model: Model, dtype: str, place: str | None = None) -> None:
    """Raise UserError if the parameters alone are more than all the memory of a device; None: where the model is scored."""
    if model.parameters is None or (place is None and model.device_map is not None):
        return
    import torch

    needed, on = model.parameters * getattr(torch, dtype).itemsize, torch.device(place or scoring_device(model))
    memory = torch.cuda.get_device_properties(on).total_memory if on.type == "cuda" else _main_memory()
    if needed > memory:
        raise UserError(
            f"model={model.name}: {model.parameters:,} parameters in {dtype} are {needed / 2**30:,.1f} GiB, and the {on.type} here "
            f"has {memory / 2**30:,.1f} GiB in all. Ways out: a larger machine; model.dtype=bfloat16, half of float32; with "
            "quant=none, model.device_map=auto spreads them over GPUs, CPU and disk."
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


def _content(path: Path) -> str:
    return hash_files(sorted(file for pattern in FILES for file in path.glob(pattern)))


def _of_transformers() -> int:
    """The major version: 4 in auto-gptq's environment, else 5."""
    return int(version("transformers").split(".")[0])


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model directory, or its .bin files where it has no others."""
    return sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def load(
    path: Path, dtype: str, device: str | None = None, settings: Model | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer; dtype: a torch type's name.

    device: where to; None: where the settings say, in parts if these have a device_map, else the fastest there is. Remote code
    is run only if the settings say so; .bin files are read by torch's weights-only loader (transformers' default), which runs
    none. Raises UserError for a tokenizer that is not the model's.
    """
    settings = settings or Model(path=str(path))
    check_memory(settings, dtype, device)
    tokenizer = load_tokenizer(path, settings.trust_remote_code)
    check_tokenizer(tokenizer, path)
    if weight_files(path)[0].suffix == ".bin":
        log.info("%s has no safetensors: its .bin files are read by torch's weights-only loader", path)
    if device is None and settings.device_map is not None:
        return _load_spread(path, dtype, settings), tokenizer
    return _from_pretrained(path, dtype, settings).to(device or scoring_device(settings)).eval(), tokenizer


def _from_pretrained(path: Path, dtype: str, settings: Model, **placement) -> PreTrainedModel:
    import pickle

    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=weight_files(path)[0].suffix == ".safetensors",
            **placement,
        )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: a .bin file holds other things than weights, which torch's weights-only loader does not read: "
            "they may run code. Convert it to safetensors where you trust it."
        ) from error


def _load_spread(path: Path, dtype: str, settings: Model) -> PreTrainedModel:
    """The model spread by accelerate over GPUs, CPU and disk, within what each may take."""
    folder = tempfile.TemporaryDirectory(prefix="bitsure-offload-")  # for weights on disk that are not safetensors
    allowed = dict(part.rsplit(":", 1) for part in settings.max_memory or ())
    model = _from_pretrained(
        path,
        dtype,
        settings,
        device_map=settings.device_map,
        max_memory={int(name) if name.isdigit() else name: size for name, size in allowed.items()} or None,
        offload_folder=folder.name,
    ).eval()
    model.offload_folder = folder  # removed with the model
    log.info("the model is spread over %s", getattr(model, "hf_device_map", "one device"))
    return model


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    import transformers

    settings = path / "tokenizer_config.json"
    saved_as = json.loads(settings.read_text()).get("tokenizer_class") if settings.is_file() else None
    if saved_as == "TokenizersBackend" and _of_transformers() == 4:  # which knows what 5 calls so by its older name only
        return transformers.PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Raise UserError if the tokenizer has an id beyond the embedding's rows; fewer ids than rows are said in a warning."""
    config = json.loads((path / "config.json").read_text())
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if rows is None:
        return
    if largest >= rows:
        raise UserError(
            f"{path}: the tokenizer has the id {largest} ({token!r}), but the model's embedding has {rows} rows, 0 to {rows - 1}. "
            "The tokenizer is another model's, or tokens were added to it without the model."
        )
    if largest + 1 < rows:
        log.warning(
            "%s: the tokenizer has ids up to %d, the embedding %d rows: %d are never used (padding, unless the tokenizer is "
            "another model's)",
            path,
            largest,
            rows,
            rows - largest - 1,
        )


def empty_model(path: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model's modules with shapes but without weights (on torch's meta device), to check before loading."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def scoring_device(model: Model) -> str:
    """Where the model is scored. Raises UserError if this machine has no such device."""
    import torch

    if model.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = model.device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"model.device={model.device}: torch finds {torch.cuda.device_count()} GPUs here. Leave it out, or cpu.")
    return model.device


def computing_dtype(model: Model, path: Path) -> str:
    """What to compute in, by name: "auto" is float32 on a CPU, the type of the published weights on a GPU.

    Half precision is slow on a CPU and moves log-likelihoods there.
    """
    where = scoring_device(model)  # also where the type is given, so that a device that is not there is said early
    if model.dtype != "auto":
        return model.dtype
    if where == "cpu":
        return "float32"
    config = json.loads((path / "config.json").read_text())
    return model.full_dtype or config.get("dtype") or config.get("torch_dtype") or "float32"


def context_length(path: Path) -> int | None:
    """The longest input the model was made for, in tokens; None if its config does not say."""
    return _context_of(json.loads((path / "config.json").read_text()))


def _context_of(config: dict) -> int | None:
    return next((config[key] for key in CONTEXT if key in config), None)
