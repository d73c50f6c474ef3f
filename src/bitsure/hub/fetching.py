"""Filling a mirror: a repository's files appear in it all at once, and an interrupted fetch continues."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bitsure.base.store import Store
from bitsure.hub import mirrors
from bitsure.hub.conversions import REF, Conversions, is_script_error
from bitsure.hub.dataset_calls import DatasetCall
from bitsure.hub.failures import explained, is_data_set_error
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.hub.repository_files import download
from bitsure.hub.retries import check_reachable, retry_while_busy


def fetch_model(model: WantedModel, mirror: Path, store: Store | None = None) -> LocalFiles:
    """Put a model's files into a mirror, unless it has them.

    Raises:
        UserError: If the model is not available, or the mirror has it at another revision.
    """
    final, unfinished = mirror / "models" / model.repo, mirror / ".unfinished" / "models" / model.repo
    with mirrors.lock(mirror, "models", model.repo):
        if present := mirrors.find_model(model.repo, model.revision, str(mirror), store):
            return present
        with explained(model, model.place, model=model):
            files = download(model, unfinished)
        assert files.commit is not None
        shutil.rmtree(files.path / ".cache")  # the client's notes on its downloads
        mirrors.note_model(files.path, model.revision, files.commit)
        final.parent.mkdir(parents=True, exist_ok=True)
        files.path.rename(final)
        shutil.rmtree(unfinished)  # with what was begun of other commits
    return LocalFiles(final, files.commit)


def fetch_file(model: WantedModel, file: str, mirror: Path, store: Store | None = None) -> LocalFiles:
    """Put one file of a model's repository into a mirror, unless it has it; of the commit that the mirror's other files are of.

    Raises:
        UserError: If the file is not available, or the mirror has the repository at another revision.
    """
    from huggingface_hub import HfApi, hf_hub_download

    final, unfinished = mirror / "models" / model.repo, mirror / ".unfinished" / "models" / model.repo / file
    with mirrors.lock(mirror, "models", model.repo):
        present = mirrors.find_model(model.repo, model.revision, str(mirror), store)
        if present and (final / file).is_file():
            return LocalFiles(final / file, present.commit)
        with explained(f"{file} of {model}", f"{model.place}/{file}", model=model):
            check_reachable()
            commit = (present and present.commit) or HfApi().model_info(model.repo, revision=model.revision).sha
            hf_hub_download(model.repo, file, revision=commit, local_dir=unfinished)
        assert commit is not None
        (final / file).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / file).rename(final / file)
        shutil.rmtree(unfinished)
        if present is None:
            mirrors.note_model(final, model.revision, commit)
    return LocalFiles(final / file, commit)


def fetch_dataset_files(repo: str, files: list[str], mirror: Path, commit: str | None = None, ref: str | None = None) -> None:
    """Put some files of a data set's repository into a mirror, unless it has them; none appears before all are there.

    Args:
        repo: The data set.
        files: Their names in the repository.
        mirror: The mirror's directory.
        commit: The commit; None for the newest of `ref`.
        ref: The ref that the commit is on, if that is not the hub's own branch.

    Raises:
        UserError: If a file is not available.
    """
    with mirrors.lock(mirror, "datasets", repo):
        if missing := [file for file in files if not (mirror / "datasets" / repo / file).is_file()]:
            _fetch_missing(repo, missing, mirror, commit, ref)


def _fetch_missing(repo: str, missing: list[str], mirror: Path, commit: str | None, ref: str | None) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    final, begun = mirror / "datasets" / repo, mirror / ".unfinished" / "datasets" / repo
    with explained(f"data set {repo}", f"datasets/{repo}"):
        commit = commit or retry_while_busy(HfApi().dataset_info, repo, revision=ref).sha
    assert commit is not None
    unfinished = begun / commit
    for file in missing:
        with explained(f"{file} of data set {repo}", f"datasets/{repo}/{file}"):
            hf_hub_download(repo, file, repo_type="dataset", revision=commit, local_dir=unfinished)
    mirrors.note_data(final, commit, {file: unfinished / file for file in missing}, ref)
    for file in missing:
        (final / file).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / file).rename(final / file)
    shutil.rmtree(begun)


def fetch_data_set(call: DatasetCall, mirror: Path, conversions: Conversions) -> None:
    """Put the files of a data set's configuration and its card into a mirror; of a script, those of its conversion.

    Raises:
        UserError: If the data set is not available.
    """
    from huggingface_hub import HfFileSystem

    repo = call.path
    with explained(call, f"datasets/{repo}", is_expected=is_data_set_error):
        check_reachable()
        try:
            addresses = retry_while_busy(call.files, repo)
        except RuntimeError as error:
            if not is_script_error(error):
                raise
            conversion = retry_while_busy(conversions.find, repo, call.configuration)
            files = [name for names in conversion.splits.values() for name in names]
            fetch_dataset_files(repo, files, mirror, conversion.commit, REF)
            with mirrors.lock(mirror, "datasets", repo):
                conversion.describe(repo, mirror / "datasets" / repo)
            return
    places: list[Any] = [HfFileSystem().resolve_path(address) for address in addresses]
    files = ["README.md", *sorted({place.path_in_repo for place in places})]
    fetch_dataset_files(repo, files, mirror, places[0].revision)
