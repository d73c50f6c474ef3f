"""Compose every cell that a sweep's command names, and find everything that is wrong with them, before any cell runs."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.progress import progress
from bitsure.config.labels import model_labels
from bitsure.config.schema import Config, resolved
from bitsure.config.sweep_overrides import expand
from bitsure.sweep.launch.cell_composer import CellComposer, Job, Outcome, unresolved
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell

MANY = 64  # cells from which on a second process is worth its start
AT_ONCE = 20  # neighbours that one process composes, which share choices of groups


def compose_cells(master: DictConfig, loader: ConfigLoader) -> tuple[list[ComposedCell], CellErrors]:
    """Compose every cell that Hydra's own sweeper will launch for a command line.

    Args:
        master: The sweep's config, as Hydra gives it to a callback.
        loader: Hydra's, which has composed `master`.

    Returns:
        The cells that could be composed, in their order, and the errors of the others. There are neither under another
        sweeper, which chooses its cells as it goes.

    Raises:
        UserError: If the cells' directories cannot be known before they run.
    """
    if not str(master.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return [], CellErrors()
    if "${now:" in unresolved(master.hydra.sweep, "subdir"):
        raise UserError(
            "hydra.sweep.subdir: ${now:…} is another time in each cell than in the plan. Have it in hydra.sweep.dir."
        )
    _ = master.hydra.sweep.dir  # `${now:…}` is resolved here and now: cells inherit the result, as Hydra's own do
    overrides = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    # unresolved, as Hydra's own sweeper takes them: `${…}` stands for a setting of each cell
    given = OmegaConf.to_container(master.hydra.overrides.task)
    assert isinstance(given, list)
    jobs = list(enumerate(expand([*overrides, *given], loader)))
    cells, errors = [], CellErrors()
    for (number, _), result in zip(jobs, _in_processes(CellComposer(master, loader), jobs), strict=True):
        if isinstance(result, ComposedCell):
            cells.append(result)
        else:
            errors.add(number, *result)
    _check_distinct(cells, errors)
    return _told_apart(cells), errors


def _in_processes(composer: CellComposer, jobs: Sequence[Job]) -> list[Outcome]:
    """Compose on all processors if there are many cells; each process takes neighbours, which share choices of groups."""
    processes = (os.cpu_count() or 1) if len(jobs) >= MANY and hasattr(os, "fork") else 1
    if processes == 1:
        return [composer(job) for job in jobs]
    # forked, so that the processes have Hydra's state; nothing in this one has threads yet
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, context, initializer=_keep, initargs=(composer,))
    with pool, progress("composing", len(jobs), "cells") as advance:
        outcomes = []
        for outcome in pool.map(_compose, jobs, chunksize=AT_ONCE):
            outcomes.append(outcome)
            advance()
        return outcomes


_of_this_process: list[CellComposer] = []
"""What composes in a process of its own, with all that it has read before."""


def _keep(composer: CellComposer) -> None:
    _of_this_process.append(composer)


def _compose(job: Job) -> Outcome:
    return _of_this_process[0](job)


def _told_apart(cells: Sequence[ComposedCell]) -> list[ComposedCell]:
    """Return the cells with labels that tell models of one name apart."""
    names = model_labels([cell.config.model for cell in cells])
    return [
        replace(cell, labels=cell.labels.model_copy(update={"model": name})) for cell, name in zip(cells, names, strict=True)
    ]


def _check_distinct(cells: Sequence[ComposedCell], errors: CellErrors) -> None:
    """Note cells that are the same, and different cells that would write to one directory."""
    same: dict[str, list[ComposedCell]] = defaultdict(list)
    for cell in cells:
        same[hash_json(resolved(cell.config))].append(cell)
    directories: dict[Path, list[ComposedCell]] = defaultdict(list)
    for alike in same.values():
        directories[alike[0].directory].append(alike[0])
        if len(alike) > 1:
            overrides = " and ".join(dict.fromkeys(" ".join(cell.overrides) for cell in alike))
            message = (
                f"they have the same settings ({overrides}). Remove what is named twice, or a setting that overrides another."
            )
            errors.numbers[message] = [cell.number for cell in alike]
    for directory, others in directories.items():
        if len(others) > 1:
            advice = "Give hydra.sweep.subdir what tells them apart, such as ${hydra:job.num}."
            errors.numbers[f"they would all write to {directory}. {advice}"] = [cell.number for cell in others]


def repeated(cells: Sequence[ComposedCell]) -> dict[int, ComposedCell]:
    """Return which cells `sweep.skip_repeated` leaves out.

    Returns:
        Number of a cell → the earlier cell that differs from it in calibration text alone, which nothing in either reads.
    """
    first: dict[str, ComposedCell] = {}
    later: dict[int, ComposedCell] = {}
    for cell in cells:
        if cell.config.sweep.skip_repeated and not _reads_text(cell.config):
            settings = {group: values for group, values in resolved(cell.config).items() if group != "calib"}
            earlier = first.setdefault(hash_json(settings), cell)
            if earlier is not cell:
                later[cell.number] = earlier
    return later


def _reads_text(config: Config) -> bool:
    """Return whether numbers of a cell depend on its calibration text, of which the held-out windows are a part."""
    codes_activations = config.compress.measure and config.compress.tokens > 0
    of_held_out = config.control.seeds > 0 or config.attribution.measure or codes_activations
    return config.quant.needs_data or (of_held_out and not config.quant.is_full_precision)
