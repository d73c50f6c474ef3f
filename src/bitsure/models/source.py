"""Where a model's files are, what identifies them, and loading them."""

from __future__ import annotations

import json
import logging
import math
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.base.files import write_text
from bitsure.base.store import Store, hash_files
from bitsure.config.schema import ModelSettings
from bitsure.hub import mirrors
from bitsure.hub.files import find_model, missing_shards
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.models.facts import (
    check_config,
    check_memory,
    check_tokenizer,
    computing_dtype,
    of_transformers,
    scoring_device,
    warn_where_it_differs,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A full-precision model's files on this machine, and the settings it was found by."""

    name: str
    path: Path
    revision: str | None  # the hub's commit; None for a directory
    fingerprint: str  # of the files' content, or the hub's commit
    settings: ModelSettings

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """With code of its own only where the settings trust it."""
        return load_tokenizer(self.path, self.settings.trust_remote_code)


def locate(model: ModelSettings, hub_mirror: str | None, store: Store | None = None, section: str = "model") -> Source:
    """Find the model's files (mirror, cache, hub) before anything heavy is loaded; section: of the config, for messages.

    Files of no known commit are identified by their content; with a store they are read for that only where they have changed.

    Raises UserError if they are not to be had or not whole, are not what the settings say of them, are too large for this
    machine, or are not for this version of transformers.
    """
    if model.remote_code and not model.trust_remote_code:
        raise UserError(
            f"model={model.name}: {model.repo or model.path} cannot be built without Python code of its own, which is not run "
            "unless you ask for it. Read that code, then add model.trust_remote_code=true."
        )
    if model.path is not None:
        found = LocalFiles(Path(model.path), None)
        if not found.path.is_dir():
            raise UserError(f"{section}.path={model.path}: no such directory (looked at {found.path.absolute()}).")
    else:
        check = partial(_before_weights, model)
        wanted = WantedModel(model.repo, model.revision, model.gated, model.trust_remote_code, check)
        found = find_model(wanted, hub_mirror, store)
    path = found.path
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json: {section}.path wants a Hugging Face model directory.")
    check_config(model, path / "config.json")
    warn_where_it_differs(model, path / "config.json")
    if not weight_files(path):
        raise UserError(f"{path} holds no weights: expected *.safetensors (or pytorch_model*.bin).")
    if missing := missing_shards(path):
        raise UserError(f"{path} lacks {', '.join(missing[:5])}, which its index names: bring the rest of the model.")
    fingerprint = f"{model.repo}@{found.commit}" if found.commit else _content(path, store)
    return Source(model.name, path, found.commit, fingerprint, model)


def _before_weights(model: ModelSettings, config: Path) -> None:
    check_config(model, config)
    check_memory(model, computing_dtype(model, config.parent))


def _content(path: Path, store: Store | None) -> str:
    return hash_files(mirrors.model_files(path), store)


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model directory, or its .bin files where it has no others."""
    return sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def stored_types(path: Path) -> dict[str, int]:
    """How many values a checkpoint has of each type, by safetensors' names, from the files' headers; none for .bin files."""
    from safetensors import safe_open

    found: Counter[str] = Counter()
    for file in weight_files(path):
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a dict
                    one = tensors.get_slice(key)
                    found[one.get_dtype()] += math.prod(one.get_shape())
    return dict(found)


def stored_bits(path: Path, parameters: int) -> float:
    """Bits a parameter takes in a checkpoint, the mean over floating-point values; masks and headers are none of it.

    Of .bin files only the size is known beforehand: the nearest power of two to what that says.
    """
    floats = {kind: n for kind, n in stored_types(path).items() if kind.startswith(("F", "BF"))}
    if floats:
        return sum(n * int(re.search(r"\d+", kind)[0]) for kind, n in floats.items()) / sum(floats.values())
    return 2.0 ** round(math.log2(8 * sum(file.stat().st_size for file in weight_files(path)) / parameters))


def load(
    path: Path, dtype: str, device: str | None = None, settings: ModelSettings | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer; dtype: a torch type's name.

    device: where to; None: where the settings say, in parts if these have a device_map, else the fastest there is. Remote code
    is run only if the settings say so; .bin files are read by torch's weights-only loader (transformers' default), which runs
    none. Raises UserError for a tokenizer that is not the model's.
    """
    settings = settings or ModelSettings(path=str(path))
    check_memory(settings, dtype, device)
    tokenizer = load_tokenizer(path, settings.trust_remote_code)
    check_tokenizer(tokenizer, path)
    if weight_files(path)[0].suffix == ".bin":
        log.info("%s has no safetensors: its .bin files are read by torch's weights-only loader", path)
    if device is None and settings.device_map is not None:
        return _load_spread(path, dtype, settings), tokenizer
    return _from_pretrained(path, dtype, settings).to(device or scoring_device(settings)).eval(), tokenizer


def _from_pretrained(path: Path, dtype: str, settings: ModelSettings, **placement) -> PreTrainedModel:
    import pickle

    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are said below, with those that are missing
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=weight_files(path)[0].suffix == ".safetensors",
            **placement,
        )
    except (pickle.UnpicklingError, OSError) as error:
        if not _came_from(error, pickle.UnpicklingError):
            raise
        raise UserError(
            f"{path}: a .bin file holds other things than weights, which torch's weights-only loader does not read: "
            "they may run code. Convert it to safetensors where you trust it."
        ) from error
    mismatched = [one if isinstance(one, str) else one[0] for one in found["mismatched_keys"]]  # names in transformers 4
    _check_whole(path, sorted(found["missing_keys"]), sorted(mismatched))
    return model


def _came_from(error: BaseException | None, kind: type) -> bool:
    """Whether an error is of a kind, or was raised while one of that kind was handled, as transformers 4 does."""
    return error is not None and (isinstance(error, kind) or _came_from(error.__context__, kind))


def _check_whole(path: Path, missing: list[str], mismatched: list[str]) -> None:
    """Raise UserError for tensors that transformers would leave random; tied ones it does not count as missing."""
    wrong = {"has no weights for": missing, "has weights of another shape than its config says for": mismatched}
    said = [
        f"{what} {', '.join(names[:5])}{f' and {len(names) - 5} more' * (len(names) > 5)}"
        for what, names in wrong.items()
        if names
    ]
    if said:
        raise UserError(
            f"{path} {' and '.join(said)}: the model would compute with random numbers there. Bring the whole checkpoint, "
            "and the config.json that belongs to it."
        )


def _load_spread(path: Path, dtype: str, settings: ModelSettings) -> PreTrainedModel:
    """The model spread by accelerate over GPUs, CPU and disk, within what each may take."""
    from safetensors import SafetensorError

    folder = tempfile.TemporaryDirectory(prefix="bitsure-offload-")  # for weights on disk that are not safetensors
    allowed = dict(part.rsplit(":", 1) for part in settings.max_memory or ())
    try:
        model = _from_pretrained(
            path,
            dtype,
            settings,
            device_map=settings.device_map,
            max_memory={int(name) if name.isdigit() else name: size for name, size in allowed.items()} or None,
            offload_folder=folder.name,
        ).eval()
    except SafetensorError as error:
        if of_transformers() > 4:
            raise
        raise UserError(
            f"model.device_map={settings.device_map}: transformers 4 cannot leave parts of this model on disk ({error}). Allow "
            "more memory (model.max_memory), or use the environment of requirements.txt."
        ) from error
    model.offload_folder = folder  # removed with the model
    log.info("the model is spread over %s", getattr(model, "hf_device_map", "one device"))
    return model


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Raises UserError where there is none: transformers 5 makes an empty one then, 4 says that None is no path."""
    try:
        tokenizer = _tokenizer(path, trust_remote_code)
    except TypeError:
        tokenizer = ()
    if len(tokenizer) < 2:
        raise UserError(
            f"{path} has no tokenizer: it needs tokenizer.json, or tokenizer.model, or vocab.json and merges.txt, as "
            "tokenizer.save_pretrained writes them."
        )
    return tokenizer


def _tokenizer(path: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    import transformers

    settings = path / "tokenizer_config.json"
    saved_as = json.loads(settings.read_text()).get("tokenizer_class") if settings.is_file() else None
    if saved_as == "TokenizersBackend" and of_transformers() == 4:  # which knows what 5 calls so by its older name only
        return transformers.PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)


def empty_model(path: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model's modules with shapes but without weights (on torch's meta device), to check before loading."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def measure(source: Source, store: Store) -> dict[str, int]:
    """`parameters`, a tied one counted once, and `bytes_on_disk` of the weights' files.

    Counting takes transformers and the model's modules, so that the count is kept in the store.
    """

    def fill(entry: Path) -> None:
        model = empty_model(source.path, source.settings.trust_remote_code)
        write_text(entry / "parameters.json", json.dumps(sum(parameter.numel() for parameter in model.parameters())))

    entry = store.ensure("parameters", {"model": source.fingerprint}, fill)
    counted = json.loads((entry / "parameters.json").read_text())
    return {"parameters": counted, "bytes_on_disk": sum(file.stat().st_size for file in weight_files(source.path))}
