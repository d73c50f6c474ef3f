"""Turn a sweep's file, such as sweeps/scales.yaml, into a sweep that W&B's agents run on any number of machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bitsure.base.errors import UserError
from bitsure.config.sweep_overrides import expand

HEADER = (
    "# Made from {path}. `wandb sweep FILE` registers it and prints a `wandb agent` command:\n"
    "# run that on as many machines as you like.\n"
)
OVERRIDE = "override /"


def wandb_sweep(path: Path) -> str:
    """Return the W&B sweep that runs the same cells as a file of sweeps/, as YAML text.

    Args:
        path: The file. Its values stand under hydra.sweeper.params, its own options in its defaults list.

    Raises:
        UserError: If the file is not there, is no sweep's, or sets something in another place.
    """
    try:
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
        params: dict[str, Any] = sweep["hydra"]["sweeper"]["params"]
        options = [_option(entry) for entry in sweep["defaults"] if isinstance(entry, dict)]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of a sweep: {error}. It needs defaults and hydra.sweeper.params.") from error
    if others := sweep.keys() - {"defaults", "hydra"}:
        raise UserError(
            f"{path}: {', '.join(sorted(others))} would be lost. Give single values under hydra.sweeper.params, too."
        )
    content = {
        "program": "main.py",
        "project": "bitsure",
        "name": path.stem,
        "method": "grid",
        "command": [
            "${env}",
            "${interpreter}",
            "${program}",
            "${args_no_hyphens}",
            *options,
            *([] if "tracking.mode" in params else ["tracking.mode=online"]),
            f"tracking.group={path.stem}",
            # the agent's name for the cell, as two cells may start in one second
            f"hydra.run.dir=outputs/{path.stem}/${{oc.env:WANDB_RUN_ID}}",
        ],
        "parameters": {key: {"values": _values(key, value)} for key, value in params.items()},
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return HEADER.format(path=path) + text


def _option(entry: dict[str, Any]) -> str:
    """Return an entry of a defaults list, such as `override /metric: paper_compat`, as `metric=paper_compat`."""
    [(group, option)] = entry.items()
    return f"{group.removeprefix(OVERRIDE)}={option}"


def _values(key: str, values: Any) -> list[Any]:
    """Return what a sweep goes over, such as `8,32` as [8, 32]."""
    return [yaml.safe_load(override.partition("=")[2]) for [override] in expand([f"{key}={values}"])]
