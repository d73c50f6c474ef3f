"""Files of Hugging Face repositories: from a mirror directory that has them, else from the hub's cache, else from the hub.

`mirrors.py` knows what a mirror holds; `prefetch.py` fills one.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.hub import mirrors
from bitsure.hub.failures import explained, status_of, wait_asked_for
from bitsure.hub.mirrors import Found

log = logging.getLogger(__name__)

SMALL = ("*.json", "*.jinja", "*.model", "*.txt")  # configs and tokenizers
WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")  # the first of these that a repository has
NESTED = "*/*"  # copies in other formats lie in folders
TRIES, LONGEST_WAIT = 5, 60.0  # of a request that the hub puts off; seconds


def find_model(
    repo: str,
    revision: str,
    mirror: str | None,
    gated: bool = False,
    code: bool = False,
    before_weights: Callable[[Path], None] = lambda config: None,
    store: Store | None = None,
) -> Found:
    """A model repository's files: mirror, cache, hub.

    gated: whether access must be asked for, for the errors; code: whether Python files are wanted too; before_weights is
    given config.json before anything large is downloaded, to raise UserError; store: knows hashes. Raises UserError for what
    cannot be had, and for a mirror that was filled at another revision.
    """
    if found := mirrors.find_model(repo, revision, mirror, store) or _cached(repo, revision, code):
        return found
    with explained(f"model {repo} at revision {revision}", mirror, f"models/{repo}", repo, revision, gated):
        return _download(repo, revision, code, before_weights)


def dataset_file(repo: str, file: str, mirror: str | None) -> Path:
    """One file of a data set's repository: mirror, cache, hub."""
    if mirror and (path := Path(mirror) / "datasets" / repo / file).is_file():
        return path
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(cached := try_to_load_from_cache(repo, file, repo_type="dataset"), str):
        return Path(cached)
    with explained(f"{file} of data set {repo}", mirror, f"datasets/{repo}/{file}"):
        check_reachable()
        return Path(patiently(hf_hub_download, repo, file, repo_type="dataset"))


def file_origin(repo: str, file: str, path: Path, sha256: str, mirror: str | None) -> dict:
    """Where a `path` that `dataset_file` gave comes from, as `mirrors.origin` says it."""
    folder = mirror and Path(mirror, "datasets", repo)
    return mirrors.origin(folder, {file: sha256}) if folder and path == folder / file else by_its_folder(path)


def by_its_folder(*paths: str | Path) -> dict:
    """The commit of what the hub's client or `datasets` keeps: they name a folder by it."""
    folders = [part for path in paths for part in reversed(Path(path).parts)]
    commit = next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)
    return {"commit": commit} if commit else {"commit": None, "unknown": "its folder does not say"}


def fetch_model(
    repo: str,
    revision: str,
    mirror: Path,
    gated: bool,
    code: bool,
    check: Callable[[Path], None],
    store: Store | None = None,
) -> Found:
    """Put a model's files into a mirror: there whole or not at all, and what was fetched of it before is not fetched again."""
    final, unfinished = mirror / "models" / repo, mirror / ".unfinished" / "models" / repo
    with mirrors.lock(mirror, "models", repo):
        if found := mirrors.find_model(repo, revision, str(mirror), store):
            return found
        with explained(f"model {repo} at revision {revision}", None, f"models/{repo}", repo, revision, gated):
            found = _download(repo, revision, code, check, unfinished)
        shutil.rmtree(found.path / ".cache")  # the client's notes of what it has fetched
        mirrors.note_model(found.path, revision, found.commit)
        final.parent.mkdir(parents=True, exist_ok=True)
        found.path.rename(final)
        shutil.rmtree(unfinished)  # with what was begun of other commits
    return Found(final, found.commit)


def fetch_dataset_files(repo: str, files: list[str], commit: str | None, mirror: Path, ref: str | None = None) -> None:
    """Put some files of a data set's repository into a mirror, none before all are there.

    commit: None for the newest; ref: what it is of, where that is no branch.
    """
    with mirrors.lock(mirror, "datasets", repo):
        if missing := [file for file in files if not (mirror / "datasets" / repo / file).is_file()]:
            _fetch_missing(repo, missing, commit, mirror, ref)


def _fetch_missing(repo: str, missing: list[str], commit: str | None, mirror: Path, ref: str | None) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    final, begun = mirror / "datasets" / repo, mirror / ".unfinished" / "datasets" / repo
    with explained(f"data set {repo}", None, f"datasets/{repo}"):
        commit = commit or patiently(HfApi().dataset_info, repo).sha
    unfinished = begun / commit
    for file in missing:
        with explained(f"{file} of data set {repo}", None, f"datasets/{repo}/{file}"):
            patiently(hf_hub_download, repo, file, repo_type="dataset", revision=commit, local_dir=unfinished)
    mirrors.note_data(final, commit, {file: unfinished / file for file in missing}, ref)
    for file in missing:
        (final / file).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / file).rename(final / file)
    shutil.rmtree(begun)


def patiently(call: Callable[..., Any], *args, **kwargs) -> Any:
    """Call, and again where the hub asks for patience (429) or is out of order for a moment (502, 503, 504)."""
    for number in range(1, TRIES + 1):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if status_of(error) not in (429, 502, 503, 504) or number == TRIES:
                raise
            seconds = min(wait_asked_for(error, default=2.0**number), LONGEST_WAIT)
            log.warning("the hub says %s: trying again in %.0f s", status_of(error), seconds)
            time.sleep(seconds)
    raise AssertionError("the last try returns or raises")


def check_reachable() -> None:
    """Raise at once where the hub does not answer; its own client tries for half a minute."""
    from huggingface_hub import constants, get_session

    if not constants.HF_HUB_OFFLINE:
        get_session().head(constants.ENDPOINT, timeout=5)


def _cached(repo: str, revision: str, code: bool) -> Found | None:
    """A model in the hub's cache if it is there whole; a branch is what it was when it was downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in WEIGHTS:
        wanted = {"allow_patterns": _patterns(weights, code), "ignore_patterns": NESTED}
        try:
            path = Path(snapshot_download(repo, revision=revision, local_files_only=True, **wanted))
        except (LocalEntryNotFoundError, ValueError):  # not there or not whole; not a repository's name: the hub says it better
            return None
        if (path / "config.json").is_file() and any(path.glob(weights)) and not missing_shards(path):
            log.info("%s at revision %s is in the hub's cache: commit %s", repo, revision, path.name)
            return Found(path, path.name)
    return None


def missing_shards(path: Path) -> list[str]:
    """The files of weights that a model directory's index names and that are not there."""
    indices = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("pytorch_model*.bin.index.json"))
    named = {name for index in indices for name in json.loads(index.read_text())["weight_map"].values()}
    single = any(path.glob("model.safetensors")) or any(path.glob("pytorch_model.bin"))
    return [] if single else sorted(name for name in named if not (path / name).is_file())


def _patterns(weights: str, code: bool) -> list[str]:
    return [*SMALL, *(["*.py"] if code else []), weights]


def _download(
    repo: str, revision: str, code: bool, before_weights: Callable[[Path], None], folder: Path | None = None
) -> Found:
    """Download what a model is loaded from, into the hub's cache or into `folder`/<commit>; resumes what was begun."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    check_reachable()
    info = patiently(HfApi().model_info, repo, revision=revision, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or [] if "/" not in one.rfilename}
    if "config.json" not in sizes:
        raise UserError(f"model {repo}: the repository has no config.json: it is no model that transformers loads.")
    before_weights(Path(patiently(hf_hub_download, repo, "config.json", revision=info.sha)))
    weights = next((pattern for pattern in WEIGHTS if fnmatch.filter(sizes, pattern)), None)
    if weights is None:
        raise UserError(f"model {repo}: the repository has no weights as *.safetensors or pytorch_model*.bin.")
    patterns, place = _patterns(weights, code), folder and folder / info.sha
    wanted = {name: size for name, size in sizes.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    _check_disk(repo, sum(wanted.values()), place or Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}"))
    # into the cache by the name of the revision, so that the cache knows later which commit it was
    asked = info.sha if folder else revision
    path = patiently(snapshot_download, repo, revision=asked, local_dir=place, allow_patterns=patterns, ignore_patterns=NESTED)
    commit = info.sha if folder else Path(path).name
    log.info("%s at revision %s was downloaded: commit %s", repo, revision, commit)
    return Found(Path(path), commit)


def _check_disk(repo: str, needed: int, folder: Path) -> None:
    """Raise UserError if the files (bytes) do not fit on the disk of the folder, where some may lie already."""
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    begun = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    free = shutil.disk_usage(place).free
    if needed > free + begun:
        raise UserError(
            f"model {repo}: its files need {needed / 2**30:,.2f} GiB, and the disk of {place} has {free / 2**30:,.2f} left. "
            "Make room, or give another place: the variable HF_HOME for the hub's cache, paths.hub_mirror for a mirror."
        )


@contextmanager
def offline() -> Iterator[None]:
    """Within the block nothing is downloaded: what is not on this machine raises NotHere."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
