"""Say what a command would do: its cells, what the store has of them, what is wrong, and an estimate of the remaining work."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import NotHere, NotInstalled, UserError
from bitsure.base.memo import Memo
from bitsure.base.progress import progress
from bitsure.base.store import Store
from bitsure.config.labels import other_settings
from bitsure.config.schema import VLLM, Config, resolved
from bitsure.hub.failures import explained
from bitsure.hub.offline import is_offline, offline
from bitsure.hub.retries import check_reachable
from bitsure.models.facts import own_dtype
from bitsure.models.locate import locate_scored
from bitsure.quantize.plan import Plan
from bitsure.run import preparation, stale
from bitsure.run.directory import is_done, read_status, why_not_here
from bitsure.scoring.scored_model import ScoredModel
from bitsure.sweep.launch import downloads
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell
from bitsure.sweep.launch.estimate import A100, SECONDS_A_CELL, WorkEstimator, WorkPiece, gpu_name

NO_LOG = Path(os.devnull)
NAMED = 3  # downloads that an error names; the plan has all of them
ON_THE_NODE = (
    "Decided on the node that a cell runs on: whether model.device is there and memory is enough. model.dtype=auto is taken "
    "here for the checkpoint's own type, as on a GPU; on a node without one it is float32, and the store has other pieces."
)
SERVED = f" Memory is this machine's, and not servers'. A server that was never scored with is taken for one {A100}."
NODES = " The nodes' processors are not known: time and memory are as if the cells ran on this machine."


@dataclass
class InspectedCell:
    """A cell, and the pieces of work that it needs, each under the directory where the store keeps it."""

    cell: ComposedCell
    state: str = "new"
    """`new`, or how far the last run in the cell's directory came."""
    pieces: dict[Path, WorkPiece] = field(default_factory=dict)
    missing: set[Path] = field(default_factory=set)
    """Those of `pieces` that the store does not have."""
    downloads: list[str] = field(default_factory=list)
    """What has to be downloaded before the cell can be checked further; empty where everything is here."""

    @property
    def present(self) -> set[Path]:
        """Those of `pieces` that the store has."""
        return self.pieces.keys() - self.missing


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
        config = _as_on_a_node(cell.config, memo) if on_nodes else cell.config
        prepared = preparation.prepare(config, NO_LOG, memo)
        _find_pieces(inspected, prepared, config)
        if inspected.missing:
            preparation.load_tasks(prepared, memo)
            preparation.check(prepared, memo)
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
    inspected.missing = {place for place, piece in inspected.pieces.items() if not store.find(piece.kind, piece.made_from)}


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
        with explained("; ".join(wanted[:NAMED] + more), "models/… and DIR/datasets/…"):
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
        source = memo(locate_scored, model, config.paths.hub_mirror, Store(config.paths.store))
        model = replace(model, dtype=own_dtype(model, source.path))
    return replace(config, model=model)


def pieces_of(prepared: preparation.PreparedRun, config: Config) -> list[WorkPiece]:
    """Return a cell's pieces in the order in which they are made: full precision, the quantizer's, the noise control's."""
    pieces = _records(prepared, prepared.full_precision, None)
    if prepared.plan:
        control = config.control
        for plan in (prepared.plan, *(prepared.plan.noise(seed, control.scale) for seed in range(control.seeds))):
            model = ScoredModel(plan.source, plan.made_from)
            pieces += [WorkPiece("weights", plan.made_from, prepared, plan), *_records(prepared, model, plan)]
    elif prepared.is_pair:
        pieces += _records(prepared, prepared.scored, None)
    return pieces


def _records(prepared: preparation.PreparedRun, model: ScoredModel, plan: Plan | None) -> list[WorkPiece]:
    keys = prepared.scorer.kept.keys(model)
    is_baseline = model == prepared.full_precision
    pieces = [WorkPiece("records", made_from, prepared, plan, task, is_baseline) for task, made_from in keys.items()]
    return pieces + ([WorkPiece("texts", prepared.text.key(model), prepared, plan, None, is_baseline)] if prepared.text else [])


def show(cells: Sequence[ComposedCell], errors: CellErrors, on_nodes: bool = False) -> None:
    """Print the plan of some cells.

    Args:
        cells: The cells.
        errors: What is wrong with them already.
        on_nodes: As in `inspect_cells`.

    Raises:
        UserError: With everything that is wrong with the plan.
    """
    memo = Memo()
    inspected = inspect_cells(cells, errors, memo, on_nodes)
    out = terminal.console()
    table = Table("cell", "model and quantizer", "state", "in the store", "to make", box=None)
    of_all = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    for cell in inspected:
        in_store, to_make = _count(cell, cell.present), _count(cell, cell.missing)
        to_make = "known after downloads" if cell.downloads else to_make
        labels = cell.cell.labels
        name = ", ".join([labels.model, labels.quantizer, *other_settings(cell.cell.overrides, of_all)])
        table.add_row(str(cell.cell.number + 1), escape(name), cell.state, in_store, to_make)
    out.print(table)
    if lines := errors.lines():
        raise UserError(
            "\n".join([f"this plan has {len(lines)} error{'s' * (len(lines) > 1)}:", *(f"- {line}" for line in lines)])
        )
    out.print(f"\n{_summary(inspected, memo, on_nodes)}", markup=False, soft_wrap=True)
    if on_nodes:
        out.print(f"\n{ON_THE_NODE}", markup=False, soft_wrap=True)


def _count(cell: InspectedCell, places: set[Path]) -> str:
    pieces = [cell.pieces[place] for place in places]
    counts = Counter("baseline" if piece.is_baseline else piece.kind for piece in pieces)
    return ", ".join(f"{kind} {counts[kind]}" for kind in ("baseline", "weights", "records", "texts") if counts[kind])


def _summary(inspected: Sequence[InspectedCell], memo: Memo, on_nodes: bool) -> str:
    missing = {place for cell in inspected for place in cell.missing}
    done = sum(cell.state == "done" for cell in inspected)
    here, unknown = [cell for cell in inspected if not cell.downloads], [cell for cell in inspected if cell.downloads]
    text = f"{_cells(len(inspected))}, {done} done"
    known = ", as far as is known before the downloads" if unknown else ""
    text += f"; {len(missing)} sets of weights or records to make, each once{known}." if here else "."
    if unknown:
        text += "\n" + "\n".join(_unknown(unknown, here, on_nodes))
    pieces = {place: cell.pieces[place] for cell in here for place in cell.missing}
    if not pieces:
        return text
    estimator = WorkEstimator(next(iter(pieces.values())).run.store, memo)
    with offline(), terminal.output_to(NO_LOG):
        estimates = [estimator.estimate(piece) for piece in pieces.values()]
    to_run = sum(cell.state != "done" for cell in here)
    seconds = sum(estimate.seconds for estimate in estimates) + SECONDS_A_CELL * to_run
    disk, machine = sum(estimate.disk for estimate in estimates), f"this machine's {gpu_name() or 'CPU'}"
    memory = {
        stage: max(
            estimate.memory for piece, estimate in zip(pieces.values(), estimates, strict=True) if _stage(piece) == stage
        )
        for stage in dict.fromkeys(map(_stage, pieces.values()))
    }
    return (
        f"{text}\nAn estimate, from the models' shapes, the number of questions and earlier work in the store: "
        f"{_duration(seconds)} one after the other on {machine}; main memory of a cell: "
        f"{', '.join(f'up to {_size(most)} for {stage}' for stage, most in memory.items())}; "
        f"{_size(disk)} of disk in the store."
        + (SERVED if any(piece.is_served for piece in pieces.values()) else "")
        + _on_vllm([piece for piece in pieces.values() if piece.made_from.get("engine") == VLLM])
        + (NODES if on_nodes else "")
    )


def _unknown(unknown: Sequence[InspectedCell], here: Sequence[InspectedCell], on_nodes: bool) -> list[str]:
    """Return what is not known of cells that have to download something first, why, and what is known of their models."""
    lines = [f"To be downloaded first: {'; '.join(downloads_of(unknown))}."]
    lines += [f"The downloads would fail now: {message}" for message in ([] if on_nodes else unreachable(unknown))]
    lines.append(
        f"There is no estimate{f' of {_cells(len(unknown))}' if here else ''}: time, memory and disk follow from a model's "
        "config.json, the questions of its tasks and the calibration text, and not all of them are here."
    )
    sizes = (downloads.known_size(cell.cell.config, on_nodes) for cell in unknown)
    return lines + list(dict.fromkeys(sizes))


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def _stage(piece: WorkPiece) -> str:
    return "quantizing" if piece.kind == "weights" else "scoring"


def _on_vllm(pieces: Sequence[WorkPiece]) -> str:
    """Return what the estimate of vLLM's pieces assumes."""
    if not pieces:
        return ""
    gpus = max(piece.gpus for piece in pieces)
    kind, otherwise = gpu_name(), "this machine's CPU"
    if kind or gpus > 1:
        otherwise = f"{gpus} GPU{'s' * (gpus > 1)}, {'each ' * (gpus > 1)}one {kind or A100}"
    return f" The time of vLLM is that of earlier runs with it, otherwise of {otherwise}; the memory of GPUs is not estimated."


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
