"""Compose every cell that a sweep's command names, and find everything that is wrong with them, before any cell runs."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.progress import progress
from bitsure.config.hydra_errors import lines_of, no_such_option, refused_value, sentence
from bitsure.config.labels import model_labels, quantizer_label
from bitsure.config.schema import Config, resolved
from bitsure.config.sweep_overrides import expand
from bitsure.config.validation import check_choices, no_such_setting, to_dataclasses
from bitsure.results import Labels

MANY = 64  # cells from which on a second process is worth its start
AT_ONCE = 20  # neighbours that one process composes, which share choices of groups
MOST_NAMED = 8  # cells in an error message
REFUSALS = (HydraException, OmegaConfBaseException, ValueError, AssertionError)  # what Hydra raises at what it cannot set


@dataclass(frozen=True)
class ComposedCell:
    """A cell of a sweep: its number from 0, what its command changes, where it writes, and its settings."""

    number: int
    overrides: list[str]
    directory: Path
    config: Config
    labels: Labels

    @property
    def name(self) -> str:
        """Model and quantizer, by their full names."""
        return f"{self.config.model.name} {self.config.quant.name}"


@dataclass
class CellErrors:
    """Errors of a sweep's cells. The same error of many cells is one."""

    numbers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, *messages: str) -> None:
        """Note what is wrong with a cell."""
        for message in messages:
            self.numbers[message].append(number)

    def lines(self) -> list[str]:
        """Return each error with the numbers of its cells, in front."""
        return [f"{_numbers(numbers)}: {message}" for message, numbers in self.numbers.items()]


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
    if "${now:" in _unresolved(master.hydra.sweep, "subdir"):
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


_Job = tuple[int, list[str]]
_Outcome = ComposedCell | tuple[str, ...]


def _in_processes(compose: Callable[[_Job], _Outcome], jobs: Sequence[_Job]) -> list[_Outcome]:
    """Compose on all processors if there are many cells; each process takes neighbours, which share choices of groups."""
    processes = (os.cpu_count() or 1) if len(jobs) >= MANY and hasattr(os, "fork") else 1
    if processes == 1:
        return [compose(job) for job in jobs]
    # forked, so that the processes have Hydra's state; nothing in this one has threads yet
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context) as pool, progress("composing the cells", len(jobs)) as advance:
        outcomes = []
        for outcome in pool.map(compose, jobs, chunksize=AT_ONCE):
            outcomes.append(outcome)
            advance()
        return outcomes


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


def _numbers(numbers: list[int]) -> str:
    """Return which cells are meant, counted from 1 as their lines in the terminal are."""
    shown = ", ".join(str(number + 1) for number in numbers[:MOST_NAMED])
    if len(numbers) == 1:
        return f"cell {shown}"
    return f"{len(numbers)} cells ({shown}{' …' if len(numbers) > MOST_NAMED else ''})"


def _unresolved(node: DictConfig, key: str) -> str:
    """Return a value with its `${…}` as they were written."""
    values = OmegaConf.to_container(node)
    return str(values.get(key)) if isinstance(values, dict) else ""


class CellComposer:
    """Composes cells with Hydra's loader. That takes a tenth of a second: each choice of groups is composed once and copied."""

    def __init__(self, master: DictConfig, loader: ConfigLoader) -> None:
        self.master, self.loader = master, loader
        # names of directories that list the overrides are made while Hydra composes, so there is nothing to copy
        self.copies = "override_dirname" not in _unresolved(master.hydra.sweep, "subdir")
        self._composed: dict[tuple[str, ...], DictConfig | UserError] = {}

    def __call__(self, job: _Job) -> _Outcome:
        """Return a cell, or everything that is wrong with it."""
        number, overrides = job
        errors: list[str] = []
        try:
            check_choices(overrides)
            composed, errors = self._compose(overrides)
            choices = dict(composed.hydra.runtime.choices)
            with read_write(composed), open_dict(composed):
                composed.hydra.job.num, composed.hydra.job.id = number, str(number)
                with _hydra_config(composed):
                    directory = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
                own = DictConfig({"hydra": composed.pop("hydra")}, flags={"no_deepcopy_set_nodes": True})
                with _hydra_config(own):
                    config = to_dataclasses(composed, choices)
            quantizer = quantizer_label(config.quant.name, choices.get("quant"), overrides)
            labels = Labels(model=str(config.model.name), quantizer=quantizer, preset=choices.get("quant"))
            cell = ComposedCell(number, overrides, directory, config, labels)
        except UserError as error:
            return (*errors, *map(str, error.args))
        except (HydraException, OmegaConfBaseException) as error:
            return (*errors, str(error))
        return tuple(errors) or cell

    def _compose(self, overrides: list[str]) -> tuple[DictConfig, list[str]]:
        """Return a cell's config, and what is wrong with settings that it leaves as they were."""
        parsed = [_parse(override) for override in overrides]
        groups = [override for override in parsed if self._options(override)]
        values = [override for override in parsed if not self._options(override)]
        if unknown := [message for override in groups if (message := self._unknown_option(override))]:
            raise UserError(*unknown)
        choices = [str(override.input_line) for override in groups]
        composed = self._of_choices(tuple(choices))
        with read_write(composed):
            errors = [message for value in values if (message := self._set(value, composed, choices))]
        if not errors and not (self.copies and all(map(_is_plain, values))):
            composed = self._load(overrides)
        return composed, errors

    def _of_choices(self, choices: tuple[str, ...]) -> DictConfig:
        """Return a copy of what Hydra composes for choices of groups. Raises UserError for what it refuses."""
        if choices not in self._composed:
            try:
                self._composed[choices] = self._load(list(choices))
            except UserError as error:
                self._composed[choices] = error
        result = self._composed[choices]
        if isinstance(result, UserError):
            raise result
        return deepcopy(result)

    def _load(self, overrides: list[str]) -> DictConfig:
        """Compose as Hydra does for a cell. Raises UserError for what it refuses."""
        try:
            return self.loader.load_sweep_config(self.master, overrides)
        except REFUSALS as error:
            raise UserError(sentence(error)) from error

    def _set(self, value: Override, composed: DictConfig, choices: list[str]) -> str | None:
        """Change a setting. Return what is wrong with it, if anything is."""
        try:
            if _is_plain(value):
                OmegaConf.update(composed, value.key_or_group, value.value(), merge=True)
            else:  # it adds or removes a setting
                self._load([*choices, str(value.input_line)])
        except (UserError, *REFUSALS) as error:
            return _unknown_part(value.key_or_group, composed) or refused_value(str(value.input_line), lines_of(error)[0])
        return None

    def _options(self, override: Override) -> list[str]:
        """Return the options of the group that an override chooses from; none where it changes a setting."""
        return _options(self.loader, override.key_or_group)

    def _unknown_option(self, override: Override) -> str | None:
        """Return what to say of an option that its group does not have."""
        options, chosen = self._options(override), override.value()
        if not isinstance(chosen, str) or chosen in options:
            return None
        return no_such_option(override.key_or_group, chosen, options)


@cache
def _options(loader: ConfigLoader, group: str) -> list[str]:
    return loader.get_group_options(group)


@cache
def _parse(override: str) -> Override:
    [parsed] = OverridesParser.create().parse_overrides([override])
    return parsed


def _is_plain(override: Override) -> bool:
    """Return whether an override changes a setting that is there, which `OmegaConf.update` does as Hydra does."""
    return override.package is None and not (override.is_add() or override.is_force_add() or override.is_delete())


@contextmanager
def _hydra_config(composed: DictConfig) -> Iterator[None]:
    """Let `${hydra:…}` read a cell's config within the block."""
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, cast(HydraConf, composed)  # `set_config` would copy all of it
    try:
        yield
    finally:
        instance.cfg = before


def _unknown_part(key: str, composed: DictConfig) -> str | None:
    """Return what to say of a dotted name of which a part does not exist; None if all of it does."""
    parts = key.split(".")
    for i, part in enumerate(parts):
        group = OmegaConf.select(composed, ".".join(parts[:i])) if i else composed
        if not OmegaConf.is_dict(group) or not is_dataclass(OmegaConf.get_type(group)):
            return None
        if part not in group:
            option = composed.hydra.runtime.choices.get(parts[0])
            return no_such_setting(".".join(parts[: i + 1]), group, f"{parts[0]}={option}" if option else "")
    return None
