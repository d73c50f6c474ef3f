"""Cells of a sweep that did not finish."""

from __future__ import annotations

import json
from pathlib import Path

QUANTIZERS = ("gptq4", "rtn4", "rtn2")
HOSTILE = '<script>alert("x")</script>\u202egnp'


def leave_unfinished(folder: Path, name: str, **status) -> None:
    """Leave a cell with a config and a status alone."""
    (folder / name).mkdir()
    (folder / name / "config.yaml").write_text(
        f"model: {{name: other}}\nquant: {{name: gptq4}}\ncalib: {{name: '{HOSTILE}'}}\n"
    )
    (folder / name / "status.json").write_text(json.dumps(status))


def write_plan(folder: Path, *cells: tuple[str, str]) -> None:
    """Write plan.json with cells' directories and names."""
    planned = [{"directory": directory, "overrides": [], "name": name} for directory, name in cells]
    (folder / "plan.json").write_text(json.dumps({"cells": planned}))
