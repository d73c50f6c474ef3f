"""Measure what quantization does to a language model's confidence: `load`, `measure`, `compare`. Runs start with main.py."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitsure.api import Compared, LoadedRun, Measured, compare, load, measure, metric_settings, verdict_settings

try:
    __version__ = version("bitsure")
except PackageNotFoundError:  # the source without an installation
    __version__ = "unknown"

__all__ = [
    "Compared",
    "LoadedRun",
    "Measured",
    "__version__",
    "compare",
    "load",
    "measure",
    "metric_settings",
    "verdict_settings",
]


def __dir__() -> list[str]:
    """Return the public names, those too that were not used yet."""
    return __all__


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line and the configuration need none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'bitsure' has no attribute {name!r}")
    from bitsure import api

    return getattr(api, name)
