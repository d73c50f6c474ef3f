"""What a command would do: its cells, what the store has of them, what is wrong, and about what the rest takes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import NotHere, UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import Config, resolved
from bitsure.hub.failures import NOT_AVAILABLE, explained
from bitsure.hub.offline import is_offline, offline
from bitsure.hub.retries import check_reachable
from bitsure.models import facts as model_facts
from bitsure.models import source as models
from bitsure.run import pipeline, stale
from bitsure.run.directory import is_done, read_status, why_not_here
from bitsure.scoring.scored_model import ScoredModel
from bitsure.sweep.launch import composing
from bitsure.sweep.launch.composing import Composed
from bitsure.sweep.launch.estimate import SECONDS_A_CELL, Estimator, Piece

NOWHERE = Path(os.devnull)
ON_THE_NODE = (
    "Decided on the node that a cell runs on: whether model.device is there and memory is enough. model.dtype=auto is taken "
    "here for the checkpoint's own type, as on a GPU; on a node without one it is float32, and the store has other pieces."
)


@dataclass
class Planned:
    """A cell, and the pieces of work that it needs, by where the store keeps them."""

    cell: Composed
    state: str = "new"  # done, or what the last try came to
    pieces: dict[Path, Piece] = field(default_factory=dict)
    missing: set[Path] = field(default_factory=set)
    not_here: str | None = None  # what has to be downloaded before more can be said


def look(cells: Sequence[Composed], memo: Memo, on_nodes: bool = False) -> tuple[list[Planned], list[str]]:
    """What the store has of each cell, and everything that is wrong. Loads no weights, downloads nothing and makes nothing but
    hashes of files.

    on_nodes: the cells run on other machines, so that this one's devices and memory say nothing of them.
    """
    planned, errors = [], []
    logging.disable(logging.WARNING)  # the cells will say it again
    try:
        with offline():
            for cell in cells:
                one, wrong = _look(cell, memo, on_nodes)
                planned.append(one)
                errors.append(replace(cell, errors=wrong))
    finally:
        logging.disable(logging.NOTSET)
    return planned, composing.errors(errors)


def _look(cell: Composed, memo: Memo, on_nodes: bool) -> tuple[Planned, tuple[str, ...]]:
    if cell.config is None:
        return Planned(cell), cell.errors
    settings = resolved(cell.config)
    if is_done(cell.directory, settings):
        changed = dict.fromkeys(stale.changed(cell.config, cell.directory, memo))
        return Planned(cell, "done"), (_no_more(list(changed)),) if changed else ()
    status = read_status(cell.directory)
    planned = Planned(cell, status.state if status else "new")
    try:
        config = _for_a_node(cell.config, memo) if on_nodes else cell.config
        prepared = pipeline.prepare(config, NOWHERE, memo)
        planned.pieces = {prepared.store.path(piece.kind, piece.made_from): piece for piece in _pieces(prepared, config)}
        planned.missing = {
            place for place, piece in planned.pieces.items() if not prepared.store.find(piece.kind, piece.made_from)
        }
        if planned.missing:
            pipeline.load_tasks(prepared, memo)
            pipeline.check(prepared, memo)
    except NotHere as error:
        planned.not_here = str(error).split(NOT_AVAILABLE)[0]
    except UserError as error:
        return planned, error.args
    why = why_not_here(cell.directory, settings)
    return planned, (why,) if why else ()


def out_of_reach(planned: Sequence[Planned]) -> list[str]:
    """What is wrong where cells have to download something, and cannot."""
    away = sorted({one.not_here for one in planned if one.not_here})
    if not away:
        return []
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        with explained("; ".join(away), "models/… and DIR/datasets/…"):
            if is_offline():
                raise OfflineModeIsEnabled
            check_reachable()
    except UserError as error:
        return [str(error)]
    return []


def _no_more(changed: list[str]) -> str:
    return (
        f"done, but {' and '.join(changed)} changed since: the numbers there are of what was before, and new ones would stand "
        "beside them. Choose another hydra.sweep.dir, or remove the cells that are to be run again."
    )


def _for_a_node(config: Config, memo: Memo) -> Config:
    """The settings as a machine with a GPU and memory enough takes them; the cell checks its own."""
    model = replace(config.model, device="auto", parameters=None)
    if model.dtype == "auto":
        source = memo(models.locate, model, config.paths.hub_mirror, Store(config.paths.store))
        model = replace(model, dtype=model_facts.own_dtype(model, source.path))
    return replace(config, model=model)


def _pieces(cell: pipeline.Cell, config: Config) -> list[Piece]:
    """In the order in which they are made: full precision's records, weights, theirs; then the noise control's."""
    pieces = _records(cell, None)
    plans = [cell.plan, *(cell.plan.noise(seed) for seed in range(config.control.seeds))] if cell.plan else []
    for plan in plans:
        pieces += [Piece("weights", plan.made_from, cell, plan), *_records(cell, plan)]
    return pieces


def _records(cell: pipeline.Cell, plan: Any) -> list[Piece]:
    made = cell.scorer.keys(ScoredModel(cell.source, plan.made_from if plan else None))
    return [Piece("records", made_from, cell, plan, task) for task, made_from in made.items()]


def show(cells: Sequence[Composed], on_nodes: bool = False) -> None:
    """Print the plan. Raises UserError with everything that is wrong with it. on_nodes: as in `look`."""
    memo = Memo()
    planned, errors = look(cells, memo, on_nodes)
    out = terminal.console()
    table = Table("cell", "model and quantizer", "state", "in the store", "to make", box=None)
    for one in planned:
        row = (
            (_count(one, one.pieces.keys() - one.missing), _count(one, one.missing)) if one.pieces else ("", one.not_here or "")
        )
        table.add_row(str(one.cell.number), one.cell.name, one.state, *row)
    out.print(table)
    if errors:
        raise UserError(
            "\n".join([f"this plan has {len(errors)} error{'s' * (len(errors) > 1)}:", *(f"- {error}" for error in errors)])
        )
    out.print(f"\n{_summary(planned, memo)}", markup=False, soft_wrap=True)
    if on_nodes:
        out.print(f"\n{ON_THE_NODE}", markup=False, soft_wrap=True)


def _count(one: Planned, places: set[Path]) -> str:
    pieces = [one.pieces[place] for place in places]
    counts = Counter("baseline" if piece.plan is None else piece.kind for piece in pieces)
    return ", ".join(f"{what} {counts[what]}" for what in ("baseline", "weights", "records") if counts[what])


def _summary(planned: Sequence[Planned], memo: Memo) -> str:
    missing = {place: one.pieces[place] for one in planned for place in one.missing}
    done = sum(one.state == "done" for one in planned)
    text = f"{len(planned)} cell{'s' * (len(planned) > 1)}, {done} done; {len(missing)} pieces of work to be made, each once."
    if away := sorted({one.not_here for one in planned if one.not_here}):
        text += f"\nTo be downloaded first, and not in the estimate: {'; '.join(away)}."
    known = {place: one.pieces[place] for one in planned if not one.not_here for place in one.missing}
    if not known:
        return text
    estimator = Estimator(next(iter(known.values())).cell.store, memo)
    with offline(), terminal.output_to(NOWHERE):
        costs = [estimator(piece) for piece in known.values()]
    to_run = sum(one.state != "done" and not one.not_here for one in planned)
    seconds = sum(cost.seconds for cost in costs) + SECONDS_A_CELL * to_run
    return (
        f"{text}\nAn estimate, from the models' shapes, the questions' number and what the store knows of earlier times: "
        f"{_duration(seconds)} one after the other on this machine; up to {_bytes(max(cost.memory for cost in costs))} of "
        f"memory a cell; {_bytes(sum(cost.disk for cost in costs))} of disk in the store."
    )


def _bytes(n: float) -> str:
    return f"{n / 2**30:,.1f} GiB" if n >= 2**30 else f"{n / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
