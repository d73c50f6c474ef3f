"""Files of Hugging Face repositories: from a mirror directory if one is given and has them, else from the hub.

A mirror holds `datasets/<org>/<name>` and `models/<org>/<name>`, each a repository's files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitsure.errors import NotHere, UserError


def model_directory(repo: str, revision: str, mirror: str | None) -> tuple[Path, str | None]:
    """A model repository's files and the commit they are of (None from a mirror). Prefers safetensors to .bin."""
    if mirror and (path := Path(mirror) / "models" / repo).is_dir():
        return path, None
    from huggingface_hub import HfApi, snapshot_download

    with _explained(f"model {repo} at revision {revision}", mirror, f"models/{repo}"):
        _check_reachable()
        info = HfApi().model_info(repo, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or []]
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "pytorch_model*.bin"
        patterns = ["*.json", "*.model", "*.txt", weights]
        return Path(snapshot_download(repo, revision=info.sha, allow_patterns=patterns)), info.sha


def dataset_file(repo: str, file: str, mirror: str | None) -> Path:
    """One file of a data set's repository."""
    if mirror and (path := Path(mirror) / "datasets" / repo / file).is_file():
        return path
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(cached := try_to_load_from_cache(repo, file, repo_type="dataset"), str):
        return Path(cached)
    with _explained(f"{file} of data set {repo}", mirror, f"datasets/{repo}/{file}"):
        _check_reachable()
        return Path(hf_hub_download(repo, file, repo_type="dataset"))


@contextmanager
def datasets_from(mirror: str | None, own_files: str | None) -> Iterator[None]:
    """Within the block, `datasets.load_dataset` reads a repository from the mirror where that has it.

    Relative `data_files` of one's own tasks are found in `own_files`, the folder of their YAML, wherever the run starts.
    """
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, *args, **kwargs):
        if own_files and kwargs.get("data_files"):
            kwargs["data_files"] = _beside(own_files, kwargs["data_files"])
        mirrored = Path(mirror) / "datasets" / path if mirror else None
        with _explained(f"data set {path}", mirror, f"datasets/{path}"):
            return original(str(mirrored) if mirrored is not None and mirrored.is_dir() else path, *args, **kwargs)

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def _beside(folder: str, files: str | list | dict) -> str | list | dict:
    """Relative paths as paths in a folder; addresses and absolute paths stay."""
    if isinstance(files, dict):
        return {split: _beside(folder, some) for split, some in files.items()}
    if isinstance(files, str):
        return files if "://" in files else str(Path(folder, files))
    return [_beside(folder, some) for some in files]


@contextmanager
def offline() -> Iterator[None]:
    """Within the block nothing is downloaded: what is not on this machine raises NotHere."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _check_reachable() -> None:
    """Raise at once where the hub does not answer; its own client tries for half a minute."""
    from huggingface_hub import constants, get_session

    if not constants.HF_HUB_OFFLINE:
        get_session().head(constants.ENDPOINT, timeout=5)


@contextmanager
def _explained(what: str, mirror: str | None, place: str) -> Iterator[None]:
    """Turn the hub's many errors into one that says what was wanted and the ways out."""
    try:
        yield
    except Exception as error:
        looked = f"the mirror {mirror} has no {place}, and the hub" if mirror else "the hub"
        reason = str(error).strip().split("\n")[0][:300]
        from huggingface_hub import constants

        raise (NotHere if constants.HF_HUB_OFFLINE else UserError)(
            f"{what} cannot be had: {looked} said {type(error).__name__}: {reason}\n"
            f"Ways out: a machine with a network; or put the files into DIR/{place} and give paths.hub_mirror=DIR."
        ) from error
