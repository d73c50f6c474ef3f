"""Find out whether the files that a finished run read have changed: a config names files, not their content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import Config
from bitsure.hub import mirrors
from bitsure.hub.repositories import FILES
from bitsure.metrics.own_metrics import code_hashes
from bitsure.models.locate import locate_scored
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.libraries import prequantized
from bitsure.quantize.quantizer import as_quantizer
from bitsure.results import Provenance
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.tasks.open_questions import open_files


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
        origin = results.read_if_there(run_dir / "provenance.json", Provenance)
    except UserError:
        return []
    if origin is None:
        return []
    sources: list[str] = []
    find_all = (_model, _checkpoint, _calib_text, _scored_text, _own_tasks, _open_questions, _data_sets, _own_quantizer)
    for find_changed in (*find_all, _recipe, _own_metrics):
        with suppress(UserError):
            sources += find_changed(config, origin, memo or Memo())
    return sources


def _model(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    source = memo(locate_scored, config.model, config.paths.hub_mirror, Store(config.paths.store))
    if origin.model and origin.model.fingerprint != source.fingerprint:
        yield f"the model in {source.path}"


def _checkpoint(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    source = memo(prequantized.locate, config.quant, config.paths.hub_mirror, Store(config.paths.store))
    quant = _quant(origin)
    quant = quant.get("like", {}).get("quant", quant)  # A noise control has the checkpoint of what it is matched to.
    if source and quant.get("checkpoint") not in (None, source.fingerprint):
        yield f"the checkpoint in {source.path}"


def _calib_text(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    text = (origin.weights or {}).get("text")
    if text and config.calib.kind == "text":  # Training splits cannot be identified without the harness.
        now = memo(locate_text, config.calib, config.paths.hub_mirror, config.task, Store(config.paths.store))
        if now.fingerprint != text["sha256"]:
            yield f"the calibration text {now.place}"


def _scored_text(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    text = memo(locate_text_file, config.text, config.paths.hub_mirror, Store(config.paths.store))
    if text and origin.text and text.sha256 != origin.text.sha256:
        yield f"the text {text.file}"


def _own_tasks(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    if config.task.include_path:
        now = memo(locate_questions, config.task, config.paths.hub_mirror)
        if origin.own_tasks not in (None, now.own_tasks):
            yield f"the tasks in {config.task.include_path}"


def _open_questions(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    if origin.open_files:
        now = memo(open_files, config.task.open)
        yield from (f"the file {file}" for file, content in now.items() if origin.open_files.get(file) not in (None, content))


def _data_sets(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    mirror = config.paths.hub_mirror
    for repositories in (origin.data or {}).values():
        for repo, read in repositories.items():
            hashes = read.get("sha256", {})
            in_mirror = Path(mirror, "datasets", repo) if mirror else None
            folder = Path() if repo == FILES else in_mirror
            current = memo(mirrors.hashes, folder, tuple(hashes)) if folder else {}
            changed = [name for name, now in current.items() if now not in (None, hashes[name])]
            if changed:
                yield f"the file {changed[0]}" if repo == FILES else f"the data set {repo} in {mirror}"


def _own_quantizer(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    code = _quant(origin).get("code")
    if code is not None and as_quantizer(config.quant).identity(None).get("code") != code:
        yield f"the code of quant={config.quant.name}"


def _recipe(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    quant = _quant(origin)
    if quant.get("method") == "recipe" and as_quantizer(config.quant).identity(None).get("layers") != quant["layers"]:
        yield f"the recipe of quant={config.quant.name}"


def _own_metrics(config: Config, origin: Provenance, memo: Memo) -> Iterator[str]:
    for name, code in memo(code_hashes, config.metric).items():
        if (origin.own_metrics or {}).get(name) not in (None, code):
            yield f"the code of metric.own.{name}"


def _quant(origin: Provenance) -> dict[str, Any]:
    """Return what the weights were made by: the quantizer's method and settings; empty in full precision."""
    quant = (origin.weights or {}).get("quant")
    return quant if isinstance(quant, dict) else {}
