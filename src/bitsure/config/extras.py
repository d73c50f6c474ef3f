"""The optional parts of the project, extras of pyproject.toml, and what to do where one is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bitsure.base.errors import NotInstalled
from bitsure.config.paths import CHECKOUT

RUN_PACKAGES = (  # what the extra `run` brings, by the names they are imported by
    "constriction",
    "datasets",
    "gguf",
    "gptqmodel",
    "httpx",
    "huggingface_hub",
    "lm_eval",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "typing_extensions",
    "wandb",
)


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra, and where to run it, as the end of a sentence."""
    if CHECKOUT is None:
        return f"run python -m pip install 'bitsure[{extra}]'"
    return f"in {CHECKOUT} run python -m pip install -e '.[{extra}]'"


@contextmanager
def run_extra(what: str) -> Iterator[None]:
    """Raise NotInstalled where the block imports a package of the extra `run` that is not installed.

    Args:
        what: What needs it, such as `bitsure export`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in RUN_PACKAGES:
            raise
        raise NotInstalled(f"{what} needs {error.name}, which is not installed: {how_to_install('run')}") from error
