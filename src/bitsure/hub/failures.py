"""The hub's many errors as one that says what was wanted, why it is not to be had, and the ways out. No token is ever said."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bitsure.base.errors import NotHere, UserError, did_you_mean
from bitsure.config.paths import CONF

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explained(
    what: str, mirror: str | None, place: str, repo: str | None = None, revision: str = "main", gated: bool = False
) -> Iterator[None]:
    """Turn any error inside the block into a UserError.

    place: of the files in a mirror; repo: of a model, whose errors say more; gated: it is known to want granted access.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from huggingface_hub import constants

        looked = f"the mirror {mirror} has no {place}, and " if mirror else ""
        said = f"{what} cannot be had: {looked}{_reason(error, place, repo, revision, gated)}"
        raise (NotHere if constants.HF_HUB_OFFLINE else UserError)(said) from error


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or what caused it, is about."""
    for one in _causes(error):
        if (response := getattr(one, "response", None)) is not None:
            return response.status_code
    return None


def wait_asked_for(error: BaseException, default: float) -> float:
    """Seconds that the hub asks to wait."""
    for one in _causes(error):
        if (response := getattr(one, "response", None)) is not None:
            with suppress(KeyError, ValueError):
                return float(response.headers["Retry-After"])
    return default


def _reason(error: Exception, place: str, repo: str | None, revision: str, gated: bool) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    causes, status = list(_causes(error)), status_of(error)
    is_a = lambda kind: any(isinstance(one, kind) for one in causes)  # noqa: E731
    if any(isinstance(one, OSError) and one.errno in DISK_FULL for one in causes):
        return (
            "the disk is full. What was downloaded whole is kept, and the same command goes on from there. Make room, or give "
            "another place: the environment variable HF_HOME for the hub's cache, paths.hub_mirror for a mirror."
        )
    if repo and (is_a(GatedRepoError) or (gated and status in (401, 403, 404) and not is_a(RevisionNotFoundError))):
        return _no_access(repo)
    if repo and is_a(RevisionNotFoundError):
        hint = did_you_mean(revision, _revisions(repo))
        return f"the hub's {repo} has no revision {revision}.{hint} model.revision=main is its newest."
    if repo and is_a(RepositoryNotFoundError):
        return (
            f"the hub has no repository {repo}, or none that this account may see.{did_you_mean(repo, _repositories(repo))} "
            "model=hub model.repo=org/name takes any of the hub's; for a private one log in: hf auth login"
        )
    if status == 429:
        return "the hub has had too many requests from here (429). Try again later, or log in for a higher limit: hf auth login"
    offline = is_a(OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE
    return (
        f"the hub {'is not asked (HF_HUB_OFFLINE)' if offline else _said(error)}\n"
        "Ways out: a machine with a network; or fill a mirror there, `make prefetch model=… task=… paths.hub_mirror=DIR`, "
        f"bring DIR here and give paths.hub_mirror=DIR; or put the files into DIR/{place} by hand."
    )


def _no_access(repo: str) -> str:
    from huggingface_hub import constants, get_token

    ask = f"Ask for access at {constants.ENDPOINT}/{repo} with your account"
    if get_token() is None:
        return f"{repo} is gated, and there is no token here. {ask}, then log in with its token: hf auth login, or HF_TOKEN."
    return f"{repo} is gated, and the token here has no access. {ask}, and check that the token may read gated repositories."


def _repositories(repo: str) -> list[str]:
    """Those that conf/model names, and those of the same organization, if the hub says."""
    from huggingface_hub import HfApi
    from omegaconf import OmegaConf

    files = (CONF / "model").glob("*.yaml")
    known = [OmegaConf.select(OmegaConf.load(file), "model.repo", throw_on_missing=False) for file in files]
    with suppress(Exception):  # a courtesy: the error is about something else
        known += [model.id for model in HfApi().list_models(author=repo.partition("/")[0], limit=500)]
    return sorted({name for name in known if name})


def _revisions(repo: str) -> list[str]:
    from huggingface_hub import HfApi

    with suppress(Exception):
        refs = HfApi().list_repo_refs(repo)
        return [ref.name for ref in [*refs.branches, *refs.tags]]
    return []


def _said(error: Exception) -> str:
    """The first line of the most telling error, without a token that might stand in it."""
    from huggingface_hub import get_token

    reason = next((line for line in str(error).strip().splitlines() if line.strip()), "")[:300]
    token = get_token()
    return f"said {type(error).__name__}: {reason.replace(token, '…') if token else reason}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
