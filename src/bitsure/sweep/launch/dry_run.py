"""Inspect the cells of a command without running them: what the store has of each, and what is wrong."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.errors import NotHere, NotInstalled, UserError
from bitsure.base.memo import Memo
from bitsure.base.progress import progress
from bitsure.base.store import Store
from bitsure.compress.model_compressibility import KIND as COMPRESSIBILITY
from bitsure.compress.model_compressibility import compressibility_key
from bitsure.config.schema import Config, resolved
from bitsure.hub.failures import explained
from bitsure.hub.offline import is_offline, offline
from bitsure.hub.retries import check_reachable
from bitsure.models.facts import own_dtype
from bitsure.models.locate import locate_scored
from bitsure.quantize.plan import Plan
from bitsure.run import preparation, stale
from bitsure.run.directory import is_done, read_status, why_not_here
from bitsure.scoring.attribution.part_effects import KIND as ATTRIBUTION
from bitsure.scoring.attribution.part_effects import AttributedRun
from bitsure.scoring.scored_model import ScoredModel
from bitsure.sweep.launch import downloads
from bitsure.sweep.launch.assumed_gpu import are_elsewhere
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell
from bitsure.sweep.launch.estimate import WorkPiece

NO_LOG = Path(os.devnull)
NAMED = 3  # downloads that an error names; the plan has all of them


@dataclass
class InspectedCell:
    """A cell, and the pieces of work that it needs, each under the directory where the store keeps it."""

    cell: ComposedCell
    state: str = "new"
    """`new`, or how far the last run in the cell's directory came."""
    pieces: dict[Path, WorkPiece] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)
    """Those of `pieces` that the store does not have."""
    downloads: list[str] = field(default_factory=list)
    """What has to be downloaded before the cell can be checked further; empty where everything is here."""

    @property
    def present(self) -> list[Path]:
        """Those of `pieces` that the store has."""
        return [place for place in self.pieces if place not in self.missing]


def inspect_cells(cells: Sequence[ComposedCell], errors: CellErrors, memo: Memo, on_nodes: bool = False) -> list[InspectedCell]:
    """Find what the store has of each cell and what is wrong with it. Load no weights, download nothing.

    Args:
        cells: The cells.
        errors: What is wrong with cells is added to them.
        memo: Knows what was read for other cells.
        on_nodes: Whether the cells run on other machines, so that this one's devices and memory say nothing of them.
    """
    logging.disable(logging.WARNING)  # each cell logs the same again when it runs
    try:
        inspected = []
        refused = {n for numbers in errors.numbers.values() for n in numbers}.difference(cell.number for cell in cells)
        with offline(), progress("checking", len(cells) + len(refused), "cells") as advance:
            advance(len(refused))
            for cell in cells:
                inspected.append(_inspect(cell, errors, memo, on_nodes))
                advance()
        return inspected
    finally:
        logging.disable(logging.NOTSET)


def _inspect(cell: ComposedCell, errors: CellErrors, memo: Memo, on_nodes: bool) -> InspectedCell:
    settings = resolved(cell.config)
    if is_done(cell.directory, settings):
        if changes := list(dict.fromkeys(stale.changed(cell.config, cell.directory, memo))):
            errors.add(cell.number, _stale(changes))
        return InspectedCell(cell, "done")
    status = read_status(cell.directory)
    inspected = InspectedCell(cell, status.state if status else "new")
    try:
        runs_elsewhere = on_nodes or (cell.config.plan and are_elsewhere(cell.config.scoring))
        config = _as_on_a_node(cell.config, memo) if runs_elsewhere else cell.config
        prepared = preparation.prepare(config, NO_LOG, memo)
        _find_pieces(inspected, prepared, config)
        if inspected.missing:
            preparation.load_tasks(prepared, memo)
            preparation.check(prepared, memo, runs_here=not runs_elsewhere)
            _find_pieces(inspected, prepared, config)  # which files a task reads, a part of the keys, is known only now
    except NotHere:
        with terminal.output_to(NO_LOG):
            inspected.downloads, wrong = downloads.wanted(cell.config, memo)
        errors.add(cell.number, *wrong)
        return inspected
    except UserError as error:
        if isinstance(error, NotInstalled) and cell.config.sweep.skip_not_installed:
            inspected.state = "skipped"
        else:
            errors.add(cell.number, *map(str, error.args))
        return inspected
    if why := why_not_here(cell.directory, settings):
        errors.add(cell.number, why)
    return inspected


def _find_pieces(inspected: InspectedCell, prepared: preparation.PreparedRun, config: Config) -> None:
    store, pieces = prepared.store, pieces_of(prepared, config)
    inspected.pieces = {store.path(piece.kind, piece.made_from): piece for piece in pieces}
    inspected.missing = [place for place, piece in inspected.pieces.items() if not store.find(piece.kind, piece.made_from)]


def _stale(changes: list[str]) -> str:
    return (
        f"done, but {' and '.join(changes)} changed since. Its numbers belong to the old content, and new cells would "
        "use the new one. Choose another hydra.sweep.dir, or remove the cells that are to run again."
    )


def downloads_of(inspected: Iterable[InspectedCell]) -> list[str]:
    """Return what has to be downloaded for some cells."""
    return list(dict.fromkeys(download for cell in inspected for download in cell.downloads))


def unreachable(inspected: Sequence[InspectedCell]) -> list[str]:
    """Return what is wrong where cells have to download something and the hub does not answer."""
    wanted = downloads_of(inspected)
    if not wanted:
        return []
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        more = [f"{len(wanted) - NAMED} more"] if len(wanted) > NAMED else []
        one_of = "one of " if len(wanted) > 1 else ""
        with explained(one_of + "; ".join(wanted[:NAMED] + more), "models/… and DIR/datasets/…"):
            if is_offline():
                raise OfflineModeIsEnabled
            check_reachable()
    except UserError as error:
        return [str(error)]
    return []


def _as_on_a_node(config: Config, memo: Memo) -> Config:
    """Return the settings as on a machine with a GPU and enough memory; the cell checks its own machine's."""
    model = replace(config.model, device="auto", parameters=None)
    if model.dtype == "auto":
        source = memo(locate_scored, model, config.paths.hub_mirror, Store(config.paths.store), config.plan)
        model = replace(model, dtype=own_dtype(model, source.path))
    return replace(config, model=model)


def pieces_of(prepared: preparation.PreparedRun, config: Config) -> list[WorkPiece]:
    """Return a cell's pieces: full precision, the quantizer's, the noise control's, and what else is measured."""
    pieces = _records(prepared, prepared.full_precision, None)
    if prepared.plan:
        control = config.control
        for plan in (prepared.plan, *(prepared.plan.noise(seed, control.scale) for seed in range(control.seeds))):
            model = ScoredModel(plan.source, plan.made_from)
            pieces += [WorkPiece("weights", plan.made_from, prepared, plan), *_records(prepared, model, plan)]
        pieces += _measurements(prepared, prepared.plan, config)
    elif prepared.is_pair:
        pieces += _records(prepared, prepared.scored, None)
    return pieces


def _measurements(prepared: preparation.PreparedRun, plan: Plan, config: Config) -> list[WorkPiece]:
    """Return what is measured of quantized weights besides their scores: how far they compress, and the attribution."""
    pieces = []
    if config.compress.measure and config.compress.codes and plan.quant.has_codes:
        pieces.append(WorkPiece(COMPRESSIBILITY, compressibility_key(plan, config.compress), prepared, plan))
    if prepared.attributes:
        run = AttributedRun(plan, prepared.scorer, prepared.text, config.attribution, prepared.store, prepared.log_file)
        pieces.append(WorkPiece(ATTRIBUTION, run.key(), prepared, plan))
    return pieces


def _records(prepared: preparation.PreparedRun, model: ScoredModel, plan: Plan | None) -> list[WorkPiece]:
    keys = prepared.scorer.kept.keys(model)
    is_baseline = model == prepared.full_precision
    pieces = [WorkPiece("records", made_from, prepared, plan, task, is_baseline) for task, made_from in keys.items()]
    return pieces + ([WorkPiece("texts", prepared.text.key(model), prepared, plan, None, is_baseline)] if prepared.text else [])
