"""The model's settings: where it is, its known properties, and how it is run. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bitsure.base.errors import UserError, at_least, one_of
from bitsure.config.server_settings import ServerAddress

DTYPES = ("float32", "bfloat16", "float16")
REVISION = "main"  # if none is given


@dataclass
class ModelSettings:
    """Where the full-precision model comes from, a directory (`path`) or a hub repository (`repo`), and how it is run."""

    name: str | None = None  # what it is called; None: by its directory or repository
    path: str | None = None  # a Hugging Face directory on this machine
    repo: str | None = None  # a repository of the hub, org/name
    file: str | None = None  # a GGUF file of the repository
    revision: str = REVISION  # a branch, a tag or a commit; provenance says which commit it was
    series: str | None = None  # models that differ only in size and training seed, for a sweep's report; None: by name
    training_seed: int | None = None  # distinguishes models of one series and size
    # Known properties of a repository, checked before its weights are downloaded; None: not known.
    family: str | None = None  # transformers' `model_type`
    parameters: int | None = None  # how many, tied ones counted once
    context: int | None = None  # tokens that it can read
    full_dtype: str | None = None  # of the weights as they were published: the study's "full" model
    gated: bool = False  # whether the hub requires an account with access
    remote_code: bool = False  # whether it needs Python code of the repository
    unquantizable: str | None = None  # why no quantizer supports it; it can be scored in full precision
    # How it is run.
    dtype: str = "auto"  # the type it computes in; auto: float32 on a CPU, full_dtype or the checkpoint's own on a GPU
    device: str = "auto"  # where it is scored: cpu, cuda, cuda:1 …; auto: the fastest one available
    device_map: str | None = None  # auto | balanced | sequential: spread by accelerate over GPUs, CPU and disk
    max_memory: list[str] | None = None  # of each device with device_map, such as [0:20GiB,cpu:60GiB]; None: all of it
    trust_remote_code: bool = False  # run the repository's own Python code
    # Where a server runs it (model=served): of path or repo only the tokenizer and config.json are read then.
    url: str | None = None  # of OpenAI's completions protocol, such as http://host:8000/v1
    served_name: str | None = None  # what the server calls it; None: by repo, or by the only model that it has

    def __post_init__(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise UserError(
                f"model: needs either model.path (a directory or a GGUF file) or model.repo (a hub repository); "
                f"got path={self.path!r}, repo={self.repo!r}. Examples: "
                "model=local model.path=DIR, model=hub model.repo=org/name"
            )
        check_gguf_file("model", self.repo, self.file)
        one_of("model.dtype", self.dtype, ("auto", *DTYPES))
        one_of("model.full_dtype", self.full_dtype, (None, *DTYPES))
        one_of("model.device_map", self.device_map, (None, "auto", "balanced", "sequential"))
        for key in ("parameters", "context"):
            if getattr(self, key) is not None:
                at_least(f"model.{key}", getattr(self, key), 1)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"model.device={self.device}: allowed are auto, cpu, cuda, cuda:1 and so on.")
        if self.device_map is not None and self.device != "auto":
            raise UserError(f"model.device={self.device}: model.device_map={self.device_map} chooses devices. Leave one out.")
        if self.max_memory is not None and self.device_map is None:
            raise UserError("model.max_memory limits how model.device_map spreads the model. Add model.device_map=auto.")
        for part in self.max_memory or ():
            if not re.fullmatch(r"(cpu|\d+):\d+(\.\d+)?([KMGT]i?B)?", part):
                raise UserError(
                    f"model.max_memory: {part!r} is no DEVICE:SIZE, such as cpu:60GiB, or 0:20GiB for the first GPU. "
                    "Example: 'model.max_memory=[0:20GiB,cpu:60GiB]'"
                )
        if self.url is None and self.served_name is not None:
            raise UserError(f"model.served_name={self.served_name}: of which server? Add model.url=http://host:8000/v1.")
        _ = self.server  # raises UserError for an impossible address
        self.name = self.name or _name_of(self.path, self.file or self.repo)

    @property
    def server(self) -> ServerAddress | None:
        """The server that runs it; None for a model that is run here."""
        return ServerAddress.of("model", self)


def check_there(model: ModelSettings, section: str = "model") -> None:
    """Raise UserError if the directory or GGUF file that a section of the config names is not on this machine."""
    if model.path is None:
        return
    path = Path(model.path)
    is_file = path.suffix.lower() == ".gguf" and not path.is_dir()
    if not (path.is_file() if is_file else path.is_dir()):
        kind = "file" if is_file else "directory"
        raise UserError(f"{section}.path={model.path}: no such {kind} (looked at {path.absolute()}).")


def check_gguf_file(section: str, repo: str | None, file: str | None) -> None:
    """Raise UserError for a file in a section of the config that is no GGUF file of a repository."""
    if file is not None and (repo is None or not file.lower().endswith(".gguf")):
        raise UserError(
            f"{section}.file={file}: the name of a GGUF file in the repository {section}.repo. A file of this machine is "
            f"{section}.path=FILE.gguf"
        )


def _name_of(path: str | None, repo: str | None) -> str:
    """Return the last part of a directory's or repository's name, also for `.` and `..`; the root has none."""
    name = Path(path or repo or "").name
    return name if name not in ("", "..") else Path(path or "").resolve().name or "model"
