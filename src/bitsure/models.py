"""Where a model's files are, what identifies them, and loading them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure import hub
from bitsure.config import Model
from bitsure.errors import UserError
from bitsure.store import Store, hash_files, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILES = ("*.json", "*.model", "*.txt", "*.safetensors")  # what a model directory is loaded from


@dataclass(frozen=True)
class Source:
    """A full-precision model's files on this machine."""

    name: str
    path: Path
    revision: str | None  # the hub's commit; None for a directory
    fingerprint: str  # of the files' content, or the hub's commit


def locate(model: Model, hub_mirror: str | None, section: str = "model") -> Source:
    """Find the model's files (mirror, then hub) before anything heavy is loaded; section: of the config, for messages.

    Raises UserError if the directory is missing, holds no config or no weights, or is not for this version of transformers.
    """
    if model.path is not None:
        path, revision = Path(model.path), None
        if not path.is_dir():
            raise UserError(f"{section}.path={model.path}: no such directory (looked at {path.absolute()}).")
    else:
        path, revision = hub.model_directory(model.repo, model.revision, hub_mirror)
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json: {section}.path wants a Hugging Face model directory.")
    if not weight_files(path):
        raise UserError(f"{path} holds no weights: expected *.safetensors (or pytorch_model*.bin).")
    if _of_transformers() == 4 and "rope_parameters" in json.loads((path / "config.json").read_text()):
        raise UserError(
            f"{path} was saved by transformers 5: transformers 4, which auto-gptq needs, does not find its rotary positions' "
            f"settings and would take others. Give the model as it was published, or use .venv/bin/python."
        )
    fingerprint = (
        f"{model.repo}@{revision}" if revision else hash_files(sorted(f for p in (*FILES, "*.bin") for f in path.glob(p)))
    )
    return Source(model.name, path, revision, fingerprint)


def _of_transformers() -> int:
    """The major version: 4 in auto-gptq's environment, else 5."""
    return int(version("transformers").split(".")[0])


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model directory, or its .bin files where it has no others."""
    return sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def load(path: Path, dtype: str, device: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer; dtype: a torch type's name; device: None is the fastest there is.

    Remote code is never run; .bin files are read by torch's weights-only loader (transformers' default).
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=weight_files(path)[0].suffix == ".safetensors",
    )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), load_tokenizer(path)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    import transformers

    settings = path / "tokenizer_config.json"
    saved_as = json.loads(settings.read_text()).get("tokenizer_class") if settings.is_file() else None
    if saved_as == "TokenizersBackend" and _of_transformers() == 4:  # which knows what 5 calls so by its older name only
        return transformers.PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def empty_model(path: Path) -> PreTrainedModel:
    """The model's modules with shapes but without weights (on torch's meta device), to check before loading."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def measure(source: Source, store: Store) -> dict[str, int]:
    """`parameters`, a tied one counted once, and `bytes_on_disk` of the weights' files.

    Counting takes transformers and the model's modules, so that the count is kept in the store.
    """
    made_from = {"model": source.fingerprint}
    if store.find("parameters", made_from) is None:
        with store.create("parameters", made_from) as entry:
            counted = sum(parameter.numel() for parameter in empty_model(source.path).parameters())
            write_text(entry / "parameters.json", json.dumps(counted))
    counted = json.loads((store.path("parameters", made_from) / "parameters.json").read_text())
    return {"parameters": counted, "bytes_on_disk": sum(file.stat().st_size for file in weight_files(source.path))}


def computing_dtype(dtype: str, path: Path) -> str:
    """What to compute in, by name: "auto" is float32 on a CPU, the checkpoint's own type on a GPU.

    Half precision is slow on a CPU and moves log-likelihoods there.
    """
    if dtype != "auto":
        return dtype
    import torch

    if not torch.cuda.is_available():
        return "float32"
    config = json.loads((path / "config.json").read_text())
    return config.get("dtype") or config.get("torch_dtype") or "float32"


def context_length(path: Path) -> int | None:
    """The longest input the model was made for, in tokens; None if its config does not say."""
    config = json.loads((path / "config.json").read_text())
    return next((config[key] for key in ("max_position_embeddings", "n_positions", "seq_length") if key in config), None)
