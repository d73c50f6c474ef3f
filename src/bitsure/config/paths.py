"""Where the project's own files are: in a checkout, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_ROOT = PACKAGE.parents[1]
CHECKOUT = _ROOT if PACKAGE == _ROOT / "src" / "bitsure" and (_ROOT / "conf" / "config.yaml").is_file() else None
PROJECT = CHECKOUT or Path.cwd()  # an installed copy keeps its store where it is started


def project_path(relative: str) -> Path:
    """Return where a file of the project is, such as `conf` or `pocket/tasks`.

    Args:
        relative: The path below the root of a checkout.

    Returns:
        The path in the checkout. In an installed copy: inside the package if it is shipped there, otherwise below the working
        directory.
    """
    if CHECKOUT is None and (PACKAGE / relative).exists():
        return PACKAGE / relative
    return PROJECT / relative


CONF = project_path("conf")
