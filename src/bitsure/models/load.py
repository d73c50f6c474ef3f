"""Loading a model with transformers: whole on one device, spread over several, or without weights."""

from __future__ import annotations

import logging
import re
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bitsure.base.errors import UserError
from bitsure.base.json_files import read_object
from bitsure.base.library_errors import logged_or_quoted
from bitsure.base.out_of_memory import is_out_of_memory, memory_errors
from bitsure.base.resources import keep_no_large_blocks
from bitsure.config.model import ModelSettings
from bitsure.models.facts import check_memory, scoring_device, transformers_major_version
from bitsure.models.offloading import bring_without_mapping, files_not_mapped
from bitsure.models.tokenizers import check_tokenizer, load_tokenizer
from bitsure.models.weight_content import check_finite, check_floating, check_indices, check_whole
from bitsure.models.weight_files import bytes_on_disk, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# What transformers and torch raise where they build modules by a config.json of wrong values; ImportError: of kernels it names.
BUILD_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError, ImportError)

SMALL = 2**26  # bytes of weight files: what is kept of a smaller model is little beside Python and the libraries


def load_model(
    path: Path,
    dtype: str,
    device: str | None = None,
    settings: ModelSettings | None = None,
    places: Mapping[str, str] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode and its tokenizer.

    Args:
        path: The model directory. Its .bin files are read by torch's weights-only loader, which runs no code.
        dtype: The name of the torch type to compute in.
        device: Where to; None: where the settings say, which may be several devices (device_map), otherwise the fastest.
        settings: Python code in the directory is run only if these say so.
        places: Where each part of the model goes, as accelerate's `device_map` says it; the other places are not read then.

    Raises:
        UserError: If weights are missing, damaged, not finite or not only weights, the tokenizer is not the model's, or memory
            is too small.
    """
    import torch

    settings = settings or ModelSettings(path=str(path))
    # A GPU may round float32 factors to 10 bits (TF32): of products in NVIDIA's containers, of convolutions everywhere.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    with memory_errors(f"loading {path} in {dtype}"):
        return _load(path, dtype, device, settings, places)


def _load(
    path: Path, dtype: str, device: str | None, settings: ModelSettings, places: Mapping[str, str] | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if places is None:
        check_memory(settings, dtype, device)
    tokenizer = check_files(path, settings.trust_remote_code)
    check_finite(path, dtype)
    if weight_files(path)[0].suffix == ".bin":
        log.info("%s has no safetensors: its .bin files are read by torch's weights-only loader", path)
    if places is not None:
        log.info(
            "%s: its blocks stay on disk however much memory is free, and each is read when it is needed: quantizing and its "
            "proof then take the memory of one block",
            path,
        )
        return _load_spread(path, dtype, settings, device_map=places), tokenizer
    if device is None and settings.device_map is not None:
        allowed = dict(part.rsplit(":", 1) for part in settings.max_memory or ())
        max_memory = {int(name) if name.isdigit() else name: size for name, size in allowed.items()} or None
        return _load_spread(path, dtype, settings, device_map=settings.device_map, max_memory=max_memory), tokenizer
    model = _from_pretrained(path, dtype, settings)
    model.to(device or scoring_device(settings))  # type: ignore[arg-type] # transformers' decorator hides the signature
    model.train(False)
    return model, tokenizer


def check_files(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Check all files of a model but the values of its weights, and return its tokenizer.

    Raises:
        UserError: If a file is missing or damaged, or the tokenizer is not the model's.
    """
    check_whole(path)
    check_indices(path)
    check_floating(path)
    _check_generation(path / "generation_config.json")
    empty_model(path, trust_remote_code)
    tokenizer = load_tokenizer(path, trust_remote_code)
    check_tokenizer(tokenizer, path)
    return tokenizer


def _check_generation(file: Path) -> None:
    from transformers import GenerationConfig

    if not file.is_file():
        return
    content = read_object(file)
    try:
        GenerationConfig.from_dict(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} has settings that transformers refuses ({error}). Bring the file again.") from error


def empty_model(path: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return the model's modules with shapes but without weights (on torch's meta device), for checks before loading.

    Raises:
        UserError: If transformers builds no model from config.json.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    except (StrictDataclassError, *BUILD_ERRORS) as error:
        if trust_remote_code or is_out_of_memory(error):
            raise
        raise UserError(f"{path / 'config.json'} describes no model that transformers builds{_why_not_built(error)}") from error
    return cast("PreTrainedModel", model)


def _why_not_built(error: Exception) -> str:
    """Return the rest of a sentence that says why transformers builds no model, and what to do."""
    from huggingface_hub.errors import StrictDataclassError

    if needed := re.search(r"requires the (\S+) library", str(error)):
        return f" without the library {needed[1]}, which is not installed: pip install {needed[1]}."
    if isinstance(error, StrictDataclassError | ValueError):  # about a setting, as transformers checked it
        words = " ".join(str(error).split())[:300].rstrip(".")
        return f", which says: {words}. Bring the config.json that belongs to the model."
    return (
        ": its code fails on these settings. Bring the config.json that belongs to the model; of a whole with several parts, "
        "such as text and sound, that of the language model. " + logged_or_quoted(log, "transformers", error)
    )


def _from_pretrained(path: Path, dtype: str, settings: ModelSettings, **placement: Any) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    model, loading = load(
        path,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the error below names them, with those that are missing
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=weight_files(path)[0].suffix == ".safetensors",
        **placement,
    )
    check_complete(path, loading)
    if unused := sorted(loading["unexpected_keys"]):
        log.warning(
            "%s: %d of its weights, such as %s, have no place in the model that its config.json describes, and are not used. "
            "Numbers are wrong if they should be.",
            *(path, len(unused), unused[0]),
        )
    return cast("PreTrainedModel", model)


def check_complete(path: Path, loading: Mapping[str, Any]) -> None:
    """Raise UserError for tensors that transformers left random; it does not count tied ones as missing.

    Args:
        path: The file or directory, for the message.
        loading: What `from_pretrained` returned beside the model with `output_loading_info=True`.
    """
    mismatched = [key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]]  # names in transformers 4
    faults = {
        "has no weights for": loading["missing_keys"],
        "has weights of another shape than its config says for": mismatched,
    }
    messages = [
        f"{fault} {', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' * (len(names) > 5)}"
        for fault, names in faults.items()
        if names
    ]
    if messages:
        raise UserError(
            f"{path} {' and '.join(messages)}: the model would compute with random numbers there. Bring the whole checkpoint, "
            "and the config.json that belongs to it."
        )


def _load_spread(path: Path, dtype: str, settings: ModelSettings, **placement: Any) -> PreTrainedModel:
    """Load a model that accelerate spreads over GPUs, CPU and disk, as `placement` says."""
    from safetensors import SafetensorError

    folder = tempfile.TemporaryDirectory(prefix="bitsure-offload-")  # for weights on disk that are no safetensors
    bring_without_mapping()
    if bytes_on_disk(path) > SMALL:
        keep_no_large_blocks()
    try:
        with files_not_mapped():
            model = _from_pretrained(path, dtype, settings, offload_folder=folder.name, **placement)
    except SafetensorError as error:
        if transformers_major_version() > 4:
            raise
        raise UserError(
            f"model.device_map={settings.device_map}: transformers 4 cannot leave parts of this model on disk ({error}). Allow "
            "more memory (model.max_memory), or use the environment of requirements.txt."
        ) from error
    model.train(False)
    weakref.finalize(model, folder.cleanup)
    log.info("the model is spread over %s", getattr(model, "hf_device_map", "one device"))
    return model
