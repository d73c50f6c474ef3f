"""Errors of the network, the hub and `datasets` as one message: what was wanted, why it failed, and what to do."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bitsure.base.errors import NotHere, UserError, did_you_mean
from bitsure.base.files import FULL as DISK_FULL
from bitsure.base.files import files_at
from bitsure.config.paths import CONF
from bitsure.hub.offline import is_offline
from bitsure.hub.repositories import WantedModel
from bitsure.hub.xet_errors import is_xet_network_error, xet_errno, xet_status

DISK = (*DISK_FULL, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE)
NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
INCOMPLETE = "Consistency check failed"  # the OSError of the hub's client for half a file has no type and no number
# The ValueErrors of `datasets` for a configuration or a split that a data set, or the cache of it, lacks have no type either.
UNKNOWN_PART = re.compile(
    r"BuilderConfig .* not found|Config name is missing|Unknown split|Bad split|Couldn't find cache for|There are multiple '"
)
WAYS_OUT = (
    "Ways out: use a machine with a network; or fill a mirror there, `make prefetch model=… task=… paths.hub_mirror=DIR`, copy "
    "DIR here and give paths.hub_mirror=DIR; or put the files into DIR/{place} by hand."
)


def is_hub_error(error: BaseException) -> bool:
    """Return whether an error is of the network, the disk or the hub's answers, or names an impossible repository."""
    import requests
    from huggingface_hub import errors

    of_the_hub = (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, errors.FileMetadataError)
    http_error = errors.HTTPError  # type: ignore[attr-defined]  # of httpx or httpx2, whichever the client has
    of_the_network = (ConnectionError, TimeoutError, socket.gaierror, requests.RequestException, http_error)
    if isinstance(error, (*of_the_hub, *of_the_network)) or is_xet_network_error(error):
        return True  # OfflineModeIsEnabled is a ConnectionError
    if unusable_cache(error):
        return True
    return _errno(error) in (*DISK, *NETWORK) or (isinstance(error, OSError) and INCOMPLETE in str(error))


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else xet_errno(error)


def is_data_set_error(error: BaseException) -> bool:
    """Return whether an error of `datasets` says that data cannot be fetched or read, or has no such configuration or split."""
    import aiohttp
    import pyarrow as pa
    import yaml
    from datasets.exceptions import DatasetsError

    of_the_data = (DatasetsError, FileNotFoundError, aiohttp.ClientError, yaml.YAMLError, pa.ArrowException)
    return is_hub_error(error) or isinstance(error, of_the_data) or _is_unknown_part(error)


def _is_unknown_part(error: BaseException) -> bool:
    return isinstance(error, ValueError) and bool(UNKNOWN_PART.match(str(error)))


@contextmanager
def explained(
    what: object,
    place: str,
    mirror: str | None = None,
    model: WantedModel | None = None,
    is_expected: Callable[[BaseException], bool] = is_hub_error,
) -> Iterator[None]:
    """Raise UserError for an error of the network inside the block; any other error passes through with its traceback.

    Args:
        what: What is wanted, for the message.
        place: Where a mirror would have it.
        mirror: The mirror that lacks it; None if there is none.
        model: The model that is wanted; its errors say more.
        is_expected: Returns whether an error is to be explained.

    Raises:
        UserError: With the reason and the ways out. It is NotHere if the hub may not be asked.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_expected(error):
            raise
        if reason := unusable_cache(error):
            raise UserError(f"{what} cannot be read: {reason}") from error
        lacking = f"the mirror {mirror} has no {place}, and " if mirror else ""
        message = f"{what} is not available: {lacking}{_reason(error, place, model)}"
        raise (NotHere.because(str(what), message) if is_offline() else UserError(message)) from error


@contextmanager
def explained_files(what: object, places: Sequence[Path]) -> Iterator[None]:
    """Raise UserError for files of this machine that are missing or cannot be read within the block; other errors pass.

    Args:
        what: What is read, for the message.
        places: The files, folders and patterns that it is read from; empty for what the hub has.
    """
    try:
        yield
    except Exception as error:
        if not places or not is_data_set_error(error) or any(map(is_hub_error, _causes(error))):
            raise
        if missing := [str(place) for place in places if not files_at(place)]:
            reason = f"there is no file at {', '.join(missing)}"
        else:
            reason = f"{', '.join(map(str, places))}: {_first_line(error.__cause__ or error)}"
        raise UserError(
            f"{what} cannot be read: {reason}. Correct the file, or dataset_path, data_dir or data_files in the task's YAML; "
            "relative names in data_files belong to task.include_path."
        ) from error


def unusable_cache(error: BaseException) -> str | None:
    """Return what is wrong if an error, or one of its causes, is that the hub's cache cannot be written; otherwise None."""
    from huggingface_hub import constants

    caches = [constants.HF_HOME, constants.HF_HUB_CACHE, os.environ.get("HF_DATASETS_CACHE") or constants.HF_HOME]
    for cause in _causes(error):
        if not isinstance(cause, OSError) or cause.errno in DISK_FULL or not isinstance(cause.filename, str):
            continue
        place = Path(cause.filename)
        for cache in map(Path, caches):
            if place.is_relative_to(cache) or cache.is_relative_to(place):
                return (
                    f"the hub's cache {cache} cannot be used: {cause.strerror}: {place}. Give a folder that can be written by "
                    "the environment variable HF_HOME."
                )
    return None


def http_status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or one of its causes, carries."""
    for cause in _causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
        if (status := xet_status(cause)) is not None:
            return status
    return None


def retry_after(error: BaseException, default: float) -> float:
    """Return the seconds that the hub asks to wait; the default where it names no number from 0."""
    for cause in _causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            with suppress(KeyError, ValueError):
                if (seconds := float(response.headers["Retry-After"])) >= 0:
                    return seconds
    return default


def _reason(error: Exception, place: str, model: WantedModel | None) -> str:
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    causes = list(_causes(error))
    if any(isinstance(cause, HFValidationError) for cause in causes):
        return f"this is no name of a repository, which is org/name. {_first_line(error)}"
    if any(_errno(cause) in DISK_FULL for cause in causes):
        return (
            "the disk is full. Files that were downloaded completely are kept, and the same command continues from there. Make "
            "room, or give another place: the environment variable HF_HOME for the hub's cache, paths.hub_mirror for a mirror."
        )
    if model and (reason := _reason_of_model(model, causes, http_status(error))):
        return reason
    if http_status(error) == 429:
        return "the hub has had too many requests from here (429). Try again later, or log in for a higher limit: hf auth login"
    if is_offline() or any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        answer = "the hub is not asked (HF_HUB_OFFLINE)"
    elif _is_unknown_part(error):
        return f"the data set has no such configuration or split. {' '.join(str(error).split())}"
    else:
        answer = f"the hub's client says {_first_line(error)}"
    return f"{answer}\n{WAYS_OUT.format(place=place)}"


def _reason_of_model(model: WantedModel, causes: list[BaseException], status: int | None) -> str | None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    def caused_by(kind: type[Exception]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    unknown_revision = caused_by(RevisionNotFoundError)
    if caused_by(GatedRepoError) or (model.gated and status in (401, 403, 404) and not unknown_revision):
        return _no_access(model.repo)
    if unknown_revision:
        hint = did_you_mean(model.revision, _revisions(model.repo))
        return f"the hub's {model.repo} has no revision {model.revision}.{hint} model.revision=main is its newest."
    if caused_by(RepositoryNotFoundError):
        return (
            f"the hub has no repository {model.repo}, or none that this account may see."
            f"{did_you_mean(model.repo, _repositories(model.repo))} model=hub model.repo=org/name takes any repository of the "
            "hub; for a private one log in: hf auth login"
        )
    return None


def _no_access(repo: str) -> str:
    from huggingface_hub import constants, get_token

    ask = f"Ask for access at {constants.ENDPOINT}/{repo} with your account"
    if get_token() is None:
        return f"{repo} is gated, and there is no token here. {ask}, then log in with its token: hf auth login, or HF_TOKEN."
    return f"{repo} is gated, and the token here has no access. {ask}, and check that the token may read gated repositories."


def _repositories(repo: str) -> list[str]:
    """Return the repositories in conf/model, and those of the same organization if the hub answers."""
    from huggingface_hub import HfApi
    from omegaconf import OmegaConf

    files = (CONF / "model").glob("*.yaml")
    names = {OmegaConf.select(OmegaConf.load(file), "model.repo", throw_on_missing=False) for file in files}
    with _without_hub_errors():
        names |= {model.id for model in HfApi().list_models(author=repo.partition("/")[0], limit=500)}
    return sorted(name for name in names if name)


def _revisions(repo: str) -> list[str]:
    from huggingface_hub import HfApi

    with _without_hub_errors():
        refs = HfApi().list_repo_refs(repo)
        return [ref.name for ref in [*refs.branches, *refs.tags]]
    return []


@contextmanager
def _without_hub_errors() -> Iterator[None]:
    """Pass over an error of the network within the block: the error that is being explained matters, not this one."""
    try:
        yield
    except Exception as error:
        if not is_hub_error(error):
            raise


def _first_line(error: BaseException) -> str:
    """Return the error's type and first line, without a token that might be in it."""
    from huggingface_hub import get_token

    line = next((line for line in str(error).strip().splitlines() if line.strip()), "")[:300]
    token = get_token()
    return f"{type(error).__name__}: {line.replace(token, '…') if token else line}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
