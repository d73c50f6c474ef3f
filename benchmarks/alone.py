"""A piece of work in a process of its own, so that no memory, import or thread of another is measured with it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(module: str, name: str, model: Path, folder: Path, timeout: float | None = None) -> Any:
    """What `module`'s work on `name` gives, as JSON can hold it, within so many seconds; the module's main calls `parse`."""
    command = [sys.executable, "-m", module, "--one", name, str(model), str(folder)]
    printed = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=timeout).stdout
    return json.loads(printed.splitlines()[-1])


def parse(parser: argparse.ArgumentParser, work: Callable[[str, Path, Path], Any]) -> argparse.Namespace | None:
    """The command line's arguments; None in the process of its own, which has then done the work and printed what it gave.

    work: of a name, the model's directory and an empty one.
    """
    parser.add_argument("--one", nargs=3, metavar=("NAME", "MODEL", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.one:
        return given
    name, model, folder = given.one
    Path(folder).mkdir(parents=True)
    print(json.dumps(work(name, Path(model), Path(folder))))
    return None
