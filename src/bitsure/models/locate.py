"""Finding a model's files and what identifies them, before anything heavy is loaded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.base.files import as_on_disk, hash_file
from bitsure.base.store import Store, hash_each, hash_files
from bitsure.config.model import ModelSettings, check_there
from bitsure.hub import mirrors
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.hub.repository_files import find_file, find_model, missing_shards
from bitsure.models.facts import check_config, check_memory, computing_dtype, warn_about_config
from bitsure.models.gguf.gguf_header import is_gguf
from bitsure.models.gguf.unpack import unpack
from bitsure.models.load import load_model
from bitsure.models.quantization_settings import refuse_quantized
from bitsure.models.tokenizers import load_tokenizer
from bitsure.models.weight_content import check_whole
from bitsure.models.weight_files import has_weights, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Source:
    """A full-precision model's files on this machine, and the settings that they were found by."""

    name: str
    path: Path
    revision: str | None
    """The hub's commit; None for a directory."""
    fingerprint: str
    """Identifies the files: repository and commit, or the hash of their content."""
    settings: ModelSettings
    files: tuple[tuple[str, str], ...] = ()
    """Each file, links resolved, and its SHA-256; none where the commit identifies them."""

    def check_content(self) -> None:
        """Hash every file that is about to be read: until then a file of its old size and time counts as unchanged.

        A file is read once in a process, unless it was written or replaced since.

        Raises:
            UserError: If a file does not hold what identifies the model.
        """
        for file, expected in self.files or mirrors.published_hashes(self.path):
            if (content := _hash(file, *as_on_disk(Path(file)))) != expected:
                raise UserError(
                    f"{file} does not hold what identifies this model (SHA-256 {expected[:12]}…, now {content[:12]}…): it was "
                    "damaged, or replaced by a file of its size and time. Bring the file again; if the new content is meant, "
                    "`touch` it, and it counts as another model."
                )

    def load(self, dtype: str, device: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model and its tokenizer from files that hold what identifies it; as `load_model`."""
        self.check_content()
        return load_model(self.path, dtype, device, self.settings)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; code of its own is run only if the settings trust it."""
        return load_tokenizer(self.path, self.settings.trust_remote_code)


@functools.cache
def _hash(file: str, *_: str | int) -> str:
    """Return a file's SHA-256; what else identifies it on disk tells it from an earlier one of its name."""
    return hash_file(Path(file))


def locate_model(
    model: ModelSettings, hub_mirror: str | None, store: Store | None = None, section: str = "model", planned: bool = False
) -> Source:
    """Find a model's files in its directory, the mirror, the hub's cache or the hub.

    Args:
        model: The settings.
        hub_mirror: The mirror's directory, or None.
        store: Remembers the hashes of files that have not changed. Files of unknown commit are identified by their content.
        section: The section of the config that names the model, for messages.
        planned: Whether a plan alone is made, for which config.json and tokenizer do where none of the weights is here.

    Raises:
        UserError: If files are missing, differ from what the settings say of them, are too large for this machine, are not
            for this version of transformers, or are quantized, unless `section` is `quant`.
    """
    files = _find_with_config(model, hub_mirror, store, section)
    path = files.path
    if section == "model":
        refuse_quantized(model, path)
    if planned and not has_weights(path):
        return _without_weights(model, files, store)
    if not weight_files(path):
        raise UserError(f"{path} holds no weights: expected *.safetensors (or pytorch_model*.bin).")
    if missing := missing_shards(path):
        raise UserError(f"{path} lacks {', '.join(missing[:5])}, which its index names: bring the rest of the model.")
    if broken := sorted(file for file in {*weight_files(path), *mirrors.model_files(path)} if not file.is_file()):
        raise UserError(f"{broken[0]} is no file, but a folder or a link to one that is not there: bring the file itself.")
    check_whole(path)
    return _source(model, files, mirrors.model_files(path), store)


def locate_tokenizer(model: ModelSettings, hub_mirror: str | None, store: Store | None = None) -> Source:
    """Find the tokenizer and config.json of a model that a server runs; arguments and errors are those of `locate_model`.

    Weights need not be there, and do not identify the model.
    """
    files = _find_with_config(model, hub_mirror, store, "model", with_weights=False)
    return _without_weights(model, files, store)


def locate_scored(model: ModelSettings, hub_mirror: str | None, store: Store | None = None, planned: bool = False) -> Source:
    """Find what scoring reads of a full-precision model: all of its files, or tokenizer and config where a server runs it."""
    if model.server:
        return locate_tokenizer(model, hub_mirror, store)
    return locate_model(model, hub_mirror, store, planned=planned)


def _without_weights(model: ModelSettings, files: LocalFiles, store: Store | None) -> Source:
    """Return a model that is identified by all of its files but the weights, and by their commit where it is known."""
    weights = {*weight_files(files.path), *files.path.glob("*.index.json")}
    return _source(model, files, [file for file in mirrors.model_files(files.path) if file not in weights], store)


def _source(model: ModelSettings, files: LocalFiles, read: Sequence[Path], store: Store | None) -> Source:
    """Return a model as the commit of its files, or the content of those that are read, identifies it."""
    name, path = model.name or files.path.name, files.path
    if files.commit and not model.file:  # what a GGUF file is decoded to is known by its content
        return Source(name, path, files.commit, f"{model.repo}@{files.commit}", model)
    hashes = zip((str(file.resolve()) for file in read), hash_each(read, store), strict=True)
    return Source(name, path, files.commit, hash_files(read, store), model, tuple(hashes))


def _find_with_config(
    model: ModelSettings, hub_mirror: str | None, store: Store | None, section: str, with_weights: bool = True
) -> LocalFiles:
    """Return a model's files, among them a config.json that the settings agree with."""
    if model.remote_code and not model.trust_remote_code:
        raise UserError(
            f"model={model.name}: {model.repo or model.path} cannot be built without Python code of its own, which is not run "
            "unless you ask for it. Read that code, then add model.trust_remote_code=true."
        )
    files = _find(model, hub_mirror, store, section, with_weights)
    path, config = files.path, files.path / "config.json"
    if not config.is_file():
        gguf = ", ".join(sorted(file.name for file in path.glob("*.gguf")))
        how = "give the path of the file" if model.repo is None else f"add {section}.file=FILE.gguf"
        hint = f" To read {gguf}, {how}." if gguf else ""
        raise UserError(f"{path} holds no config.json: {section}.path wants a Hugging Face model directory.{hint}")
    check_config(model, config)
    warn_about_config(model, config)
    return files


def find_gguf(model: ModelSettings, hub_mirror: str | None, store: Store | None) -> LocalFiles:
    """Return the GGUF file that settings name, on this machine or in a repository, and the commit that it is of.

    Raises:
        UserError: If a repository has no such file, or it is not available.
    """
    if model.repo is None or model.file is None:
        return LocalFiles(Path(model.path or ""), None)
    return find_file(WantedModel(model.repo, model.revision, model.gated), model.file, hub_mirror, store)


def _find(model: ModelSettings, hub_mirror: str | None, store: Store | None, section: str, with_weights: bool) -> LocalFiles:
    check_there(model, section)
    if is_gguf(model.file or model.path) and not (model.path and Path(model.path).is_dir()):
        assert store is not None, "what a GGUF file is unpacked to lies in a store"
        file = find_gguf(model, hub_mirror, store)
        return LocalFiles(unpack(file.path, store), file.commit)
    if model.repo is not None:
        early, alone = functools.partial(_check_before_weights, model, section), functools.partial(check_config, model)
        check = early if with_weights else alone
        wanted = WantedModel(model.repo, model.revision, model.gated, model.trust_remote_code, with_weights, check)
        return find_model(wanted, hub_mirror, store)
    assert model.path is not None  # the settings have one of the two
    return LocalFiles(Path(model.path), None)


def _check_before_weights(model: ModelSettings, section: str, config: Path) -> None:
    check_config(model, config)
    if section == "model":
        refuse_quantized(model, config.parent)
    check_memory(model, computing_dtype(model, config.parent))
