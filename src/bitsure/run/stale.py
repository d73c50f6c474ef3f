"""Find out whether the files that a finished run read have changed: a config names files, not their content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import Config
from bitsure.hub import mirrors
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.libraries import prequantized
from bitsure.scoring.question_source import locate_questions


def changed(config: Config, run_dir: Path, memo: Memo | None = None) -> list[str]:
    """Return which files a finished run of this config read that have other content now; nothing is loaded.

    Files that are no longer on this machine cannot be compared; they count as unchanged.

    Args:
        config: The run's settings.
        run_dir: Its directory, with provenance.json.
        memo: Remembers what was read for other cells.

    Returns:
        A phrase for each changed source, such as `the model in DIR`; empty if nothing changed.
    """
    try:
        made_by = json.loads((run_dir / "provenance.json").read_text())
    except (OSError, ValueError):
        return []
    sources: list[str] = []
    for find_changed in (_model, _checkpoint, _calib_text, _own_tasks, _data_sets):
        with suppress(UserError):
            sources += find_changed(config, made_by, memo or Memo())
    return sources


def _model(config: Config, made_by: dict[str, Any], memo: Memo) -> Iterator[str]:
    source = memo(locate_model, config.model, config.paths.hub_mirror, Store(config.paths.store))
    if made_by.get("model", {}).get("fingerprint") not in (None, source.fingerprint):
        yield f"the model in {source.path}"


def _checkpoint(config: Config, made_by: dict[str, Any], memo: Memo) -> Iterator[str]:
    source = memo(prequantized.locate, config.quant, config.paths.hub_mirror, Store(config.paths.store))
    quant = (made_by.get("weights") or {}).get("quant", {})
    quant = quant.get("like", {}).get("quant", quant)  # of a noise control
    if source and quant.get("checkpoint") not in (None, source.fingerprint):
        yield f"the checkpoint in {source.path}"


def _calib_text(config: Config, made_by: dict[str, Any], memo: Memo) -> Iterator[str]:
    text = (made_by.get("weights") or {}).get("text")
    if text and config.calib.kind == "text":  # training splits would take the harness
        now = memo(locate_text, config.calib, config.paths.hub_mirror, config.task, Store(config.paths.store))
        if now.fingerprint != text["sha256"]:
            yield f"the calibration text {now.place}"


def _own_tasks(config: Config, made_by: dict[str, Any], memo: Memo) -> Iterator[str]:
    if config.task.include_path:
        now = memo(locate_questions, config.task, config.paths.hub_mirror)
        if made_by.get("own_tasks") not in (None, now.own_tasks):
            yield f"the tasks in {config.task.include_path}"


def _data_sets(config: Config, made_by: dict[str, Any], memo: Memo) -> Iterator[str]:
    mirror = config.paths.hub_mirror
    if mirror is None:
        return
    for origins in made_by.get("data", {}).values():
        for repo, origin in origins.items():
            read = origin.get("sha256", {})
            hashes = memo(mirrors.hashes, mirror, repo, tuple(read))
            if any(now not in (None, read[name]) for name, now in hashes.items()):
                yield f"the data set {repo} in {mirror}"
