"""Files of the hub's repositories: from a mirror that has them, else from the hub's cache, else downloaded."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import shutil
from pathlib import Path

from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.hub import mirrors
from bitsure.hub.failures import explained
from bitsure.hub.repositories import LocalFiles, Origin, WantedModel
from bitsure.hub.retries import check_reachable, retry_while_busy

log = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt")  # configs and tokenizers
WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")  # the first of these that a repository has
NESTED = "*/*"  # folders hold copies in other formats


def find_model(model: WantedModel, mirror: str | None, store: Store | None = None) -> LocalFiles:
    """Return a model's files from the mirror, the hub's cache or the hub.

    Args:
        model: The model.
        mirror: The mirror's directory, or None.
        store: Remembers the hashes of files that have not changed.

    Raises:
        UserError: If the model is not available, or the mirror has it at another revision.
    """
    local = mirrors.find_model(model.repo, model.revision, mirror, store) or _find_in_cache(model)
    if local:
        return local
    with explained(model, model.place, mirror, model):
        return download(model)


def find_file(model: WantedModel, file: str, mirror: str | None, store: Store | None = None) -> LocalFiles:
    """Return one file of a model's repository from the mirror, the hub's cache or the hub, and its commit.

    Args:
        model: The repository.
        file: The file's name in it.
        mirror: The mirror's directory, or None.
        store: Remembers the hashes of files that have not changed.

    Raises:
        UserError: If the file is not available, or the mirror has the repository at another revision.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = mirrors.find_model(model.repo, model.revision, mirror, store)
    if folder and (folder.path / file).is_file():
        return LocalFiles(folder.path / file, folder.commit)
    with explained(f"{file} of {model}", f"{model.place}/{file}", mirror, model):
        path = try_to_load_from_cache(model.repo, file, revision=model.revision)
        if not isinstance(path, str):
            check_reachable()
            path = hf_hub_download(model.repo, file, revision=model.revision)
    return LocalFiles(Path(path), origin_in_cache(path)["commit"])


def dataset_file(repo: str, file: str, mirror: str | None, revision: str | None = None) -> Path:
    """Return one file of a data set's repository from the mirror, the hub's cache or the hub.

    Args:
        repo: The data set.
        file: Its name in the repository.
        mirror: The mirror's directory, or None.
        revision: The branch, ref, tag or commit; None: the hub's own.

    Raises:
        UserError: If it is not available.
    """
    if mirror and (path := Path(mirror) / "datasets" / repo / file).is_file():
        return path
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with explained(f"{file} of data set {repo}", f"datasets/{repo}/{file}", mirror):
        if isinstance(cached := try_to_load_from_cache(repo, file, revision=revision, repo_type="dataset"), str):
            return Path(cached)
        check_reachable()
        return Path(hf_hub_download(repo, file, revision=revision, repo_type="dataset"))


def file_origin(repo: str, file: str, path: Path, sha256: str, mirror: str | None) -> Origin:
    """Return where a path that `dataset_file` returned comes from."""
    folder = Path(mirror, "datasets", repo) if mirror else None
    return mirrors.origin(folder, {file: sha256}) if folder and path == folder / file else origin_in_cache(path)


def origin_in_cache(*paths: str | Path) -> Origin:
    """Return the commit that is part of the paths in which the hub's client and `datasets` keep files."""
    folders = [part for path in paths for part in reversed(Path(path).parts)]
    commit = next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)
    return {"commit": commit} if commit else {"commit": None, "unknown": "its folder does not say"}


def missing_shards(path: Path) -> list[str]:
    """Return the weight files that a model directory's index names and that do not exist."""
    return [os.path.relpath(shard, path) for shard in mirrors.indexed_shards(path) if not shard.is_file()]


def download(model: WantedModel, folder: Path | None = None) -> LocalFiles:
    """Download the files that a model is loaded from; what an earlier try downloaded is not downloaded again.

    Args:
        model: The model.
        folder: The files go to `folder`/<commit>; None: to the hub's cache.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    check_reachable()
    info = retry_while_busy(HfApi().model_info, model.repo, revision=model.revision, files_metadata=True)
    assert info.sha is not None
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    if "config.json" not in sizes:
        gguf = next((name for name in sizes if name.lower().endswith(".gguf")), None)
        hint = f" To read a GGUF file of it, add model.file={gguf}" if gguf else ""
        raise UserError(f"model {model.repo}: the repository has no config.json: it is no model that transformers loads.{hint}")
    model.check_config(Path(hf_hub_download(model.repo, "config.json", revision=info.sha)))
    weights = next((pattern for pattern in WEIGHTS if fnmatch.filter(sizes, pattern)), None) if model.with_weights else ""
    if weights is None:
        raise UserError(f"model {model.repo}: the repository has no weights as *.safetensors or pytorch_model*.bin.")
    patterns, place = _patterns(weights, model), folder and folder / info.sha
    size = sum(size for name, size in sizes.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))
    _check_disk(model.repo, size, place or Path(constants.HF_HUB_CACHE, f"models--{model.repo.replace('/', '--')}"))
    # into the cache by the name of the revision, so that the cache knows later which commit it stands for
    path = retry_while_busy(
        snapshot_download,
        model.repo,
        revision=info.sha if folder else model.revision,
        local_dir=place,
        allow_patterns=patterns,
        ignore_patterns=NESTED,
    )
    commit = info.sha if folder else Path(path).name
    log.info("%s was downloaded: commit %s", model, commit)
    return LocalFiles(Path(path), commit)


def _find_in_cache(model: WantedModel) -> LocalFiles | None:
    """Return a model of the hub's cache if all of its files exist; a branch is what it was when it was downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in WEIGHTS if model.with_weights else ("",):
        patterns = _patterns(weights, model)
        try:
            folder = snapshot_download(
                model.repo,
                revision=model.revision,
                local_files_only=True,
                allow_patterns=patterns,
                ignore_patterns=NESTED,
            )
        except (LocalEntryNotFoundError, ValueError):  # ValueError: no possible name, for which downloading has the message
            return None
        path = Path(folder)
        is_whole = not model.with_weights or (any(path.glob(weights)) and not missing_shards(path))
        if (path / "config.json").is_file() and is_whole:
            log.info("%s is in the hub's cache: commit %s", model, path.name)
            return LocalFiles(path, path.name)
    return None


def _patterns(weights: str, model: WantedModel) -> list[str]:
    return [*SMALL_FILES, *(["*.py"] if model.with_code else []), *filter(None, [weights])]


def _check_disk(repo: str, needed: int, folder: Path) -> None:
    """Raise UserError if files of `needed` bytes do not fit on the folder's disk; some may be in the folder already."""
    disk = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    present = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    free = shutil.disk_usage(disk).free
    if needed > free + present:
        raise UserError(
            f"model {repo}: its files need {binary_size(needed)}, and the disk of {disk} has {binary_size(free)} left. "
            "Make room, or give another place: the variable HF_HOME for the hub's cache, paths.hub_mirror for a mirror."
        )
