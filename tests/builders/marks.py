"""Where tests can run: marks that skip visibly what is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from bitsure.config.paths import PROJECT

SHARED = PROJECT.parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared evaluation sets are not beside the project")
# the two GPTQ libraries want different versions of transformers, so each environment lacks one of them
GPTQ_LIBRARY = "gptqmodel" if find_spec("gptqmodel") else "auto_gptq"
needs_gptqmodel = pytest.mark.skipif(find_spec("gptqmodel") is None, reason="auto-gptq's environment has no gptqmodel")
needs_auto_gptq = pytest.mark.skipif(
    find_spec("auto_gptq") is None, reason="only in auto-gptq's environment: make test-auto-gptq"
)
needs_polygraph = pytest.mark.skipif(
    find_spec("lm_polygraph") is None, reason="only in lm-polygraph's environment: make test-polygraph"
)
needs_transformers_5 = pytest.mark.skipif(
    find_spec("auto_gptq") is not None, reason="auto-gptq's environment has transformers 4"
)
EXTRAS = {
    "auto_round": "auto-round",
    "bitsandbytes": "bitsandbytes",
    "hqq": "hqq",
    "libgguf": "libgguf",
    "ray": "ray",
    "wandb_workspaces": "dashboard",
}


def library(module: str) -> Any:
    """Import a module, or skip the test and name the command that brings it."""
    package = module.partition(".")[0]
    command = f"pip install -e '.[{EXTRAS[package]}]'" if package in EXTRAS else "make setup"
    return pytest.importorskip(module, reason=f"{package} is not installed: {command}")
