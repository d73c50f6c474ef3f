"""What tests of starting sweeps share."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from bitsure.quantize import plan


@pytest.fixture
def not_installed(monkeypatch):
    """Makes a library one that is not installed, wherever the tests run."""

    def hide(library: str) -> None:
        def version(name: str) -> str:
            if name == library:
                raise PackageNotFoundError(name)
            return "1.0"

        monkeypatch.setattr(plan, "installed_version", version)

    return hide
