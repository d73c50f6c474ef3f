"""The versions of installed packages."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

installed_version = cache(version)
"""Return the version of an installed package: `importlib.metadata.version`, each call of which parses a file."""
