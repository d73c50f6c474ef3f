"""Where the project's own files are: in a checkout, or inside the installed package."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_ROOT = PACKAGE.parents[1]
CHECKOUT = _ROOT if PACKAGE == _ROOT / "src" / "bitsure" and (_ROOT / "conf" / "config.yaml").is_file() else None
_STARTED = Path(sys.argv[0] or ".").resolve().parent  # an installed copy may run the main.py of a checkout, from anywhere
_MAIN = _STARTED if (_STARTED / "conf" / "config.yaml").is_file() and (_STARTED / "pocket" / "tasks").is_dir() else None
PROJECT = CHECKOUT or _MAIN or Path.cwd()  # without a checkout the store is where the copy is started


def project_path(relative: str) -> Path:
    """Return where a file of the project is, such as `conf` or `pocket/tasks`.

    Args:
        relative: The path below the root of a checkout.

    Returns:
        The path in the checkout. In an installed copy: inside the package if it is shipped there, otherwise beside main.py,
        or below the working directory where no main.py was started.
    """
    if CHECKOUT is None and (PACKAGE / relative).exists():
        return PACKAGE / relative
    return PROJECT / relative


CONF = project_path("conf")
