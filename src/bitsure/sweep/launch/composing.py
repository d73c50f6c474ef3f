"""The cells that a sweep's command names, composed and checked before any of them runs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bitsure.base.errors import UserError, did_you_mean
from bitsure.config import schema
from bitsure.config import validation as settings

MANY = 64  # cells, from which on it is worth other processes
REFUSED = (HydraException, OmegaConfBaseException, ValueError, AssertionError)  # what Hydra raises at what it cannot set


@dataclass(frozen=True)
class Composed:
    """A cell of a sweep: what its command changes, where it writes, its settings or what is wrong with it."""

    number: int
    overrides: list[str]
    directory: Path | None  # None where it could not be composed
    config: schema.Config | None
    errors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.config.model.name} {self.config.quant.name}" if self.config else " ".join(self.overrides)


def cells(master: DictConfig, loader: ConfigLoader) -> list[Composed]:
    """Every cell that Hydra's own sweeper will launch for a command line, in its order. master: the sweep's config.

    Raises UserError where their directories cannot be known.
    """
    if not str(master.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return []  # another sweeper chooses its cells as it goes
    if "${now:" in str(OmegaConf.to_container(master.hydra.sweep)["subdir"]):
        raise UserError(
            "hydra.sweep.subdir: ${now:…} is another time in each cell than in the plan. Have it in hydra.sweep.dir."
        )
    _ = master.hydra.sweep.dir  # looked up before the cells are: they inherit what `${now:…}` gave here, as Hydra's own do
    given = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    given += OmegaConf.to_container(master.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=loader)
    [jobs] = BasicSweeper.split_arguments(parser.parse_overrides(given), max_batch_size=None)
    compose = _Composer(master, loader)
    parts = _parts(compose, list(enumerate(jobs)))
    if len(parts) == 1:
        return compose(parts[0])
    with multiprocessing.get_context("fork").Pool(len(parts)) as pool:  # nothing here has threads yet
        found = pool.map(compose, parts)
    return sorted((cell for part in found for cell in part), key=lambda cell: cell.number)


def errors(found: Sequence[Composed]) -> list[str]:
    """What is wrong with cells, each thing once, with the numbers of the cells that it is wrong with."""
    wrong: dict[str, list[int]] = defaultdict(list)
    same: dict[str, list[Composed]] = defaultdict(list)
    places: dict[Path, list[int]] = defaultdict(list)
    for cell in found:
        for error in cell.errors:
            wrong[error].append(cell.number)
        if not cell.errors:
            same[repr(schema.resolved(cell.config))].append(cell)
    for first, *others in same.values():
        places[first.directory].append(first.number)
        if others:
            given = " and ".join(dict.fromkeys(" ".join(cell.overrides) for cell in (first, *others)))
            text = f"they have the same settings ({given}): what is named twice, or a setting that overrides another, is to go."
            wrong[text] = [cell.number for cell in (first, *others)]
    for place, numbers in places.items():
        if len(numbers) > 1:
            text = (
                f"they would all write to {place}. Give hydra.sweep.subdir what tells them apart, such as ${{hydra:job.num}}."
            )
            wrong[text] = numbers
    return [f"{_numbers(numbers)}: {text}" for text, numbers in wrong.items()]


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"cell {shown}" if len(numbers) == 1 else f"{len(numbers)} cells ({shown}{' …' if len(numbers) > 8 else ''})"


def _parts(compose: _Composer, jobs: list[tuple[int, list[str]]]) -> list[list[tuple[int, list[str]]]]:
    """Jobs for each processor, those that choose the same groups together."""
    count = (os.cpu_count() or 1) if len(jobs) >= MANY and hasattr(os, "fork") else 1
    alike: dict[tuple[str, ...], list] = defaultdict(list)
    for job in jobs:
        alike[compose.split(job[1])[0] if count > 1 else ()].append(job)
    parts: list[list] = [[] for _ in range(count)]
    for jobs_alike in alike.values():
        min(parts, key=len).extend(jobs_alike)
    return [part for part in parts if part]


class _Composer:
    """Composes cells as Hydra does: the groups that a cell chooses, then its values. What cells have in common, once."""

    def __init__(self, master: DictConfig, loader: ConfigLoader):
        self.master, self.loader = master, loader
        self._parsed: dict[str, Override] = {}
        self._groups: dict[tuple[str, ...], bytes | list[str]] = {}

    def __call__(self, jobs: list[tuple[int, list[str]]]) -> list[Composed]:
        before = HydraConfig.instance().cfg
        try:
            return [self._cell(number, overrides) for number, overrides in jobs]
        finally:
            HydraConfig.instance().cfg = before

    def _cell(self, number: int, overrides: list[str]) -> Composed:
        try:
            settings.check_choices(overrides)
            composed = self._compose(overrides)
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            with read_write(composed), open_dict(composed):
                composed.hydra.job.num, composed.hydra.job.id = number, str(number)
                HydraConfig.instance().cfg = composed  # what `${hydra:…}` reads; `set_config` would copy it
                directory = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
                del composed["hydra"]
            return Composed(number, overrides, directory, settings.to_dataclasses(composed, choices))
        except UserError as error:
            return Composed(number, overrides, None, None, error.args)
        except (HydraException, OmegaConfBaseException) as error:
            return Composed(number, overrides, None, None, (str(error),))

    def split(self, overrides: list[str]) -> tuple[tuple[str, ...], list[Override]]:
        """The choices of groups, and the changes of values, which come after."""
        parsed = self._parse(overrides)
        is_group = [self.loader.repository.group_exists(one.key_or_group) for one in parsed]
        groups = tuple(one.input_line for one, group in zip(parsed, is_group, strict=True) if group)
        return groups, [one for one, group in zip(parsed, is_group, strict=True) if not group]

    def _compose(self, overrides: list[str]) -> DictConfig:
        groups, values = self.split(overrides)
        composed = pickle.loads(self._of_groups(groups))
        with read_write(composed):
            if wrong := [said for one in values if (said := _set(one, composed))]:
                raise UserError(*wrong)
            names = composed.hydra.job.config.override_dirname
            parsed = [one for one in self._parse(overrides) if not one.is_hydra_override()]
            composed.hydra.job.override_dirname = get_overrides_dirname(
                parsed, list(names.exclude_keys), names.item_sep, names.kv_sep
            )
        return composed

    def _parse(self, overrides: list[str]) -> list[Override]:
        for one in overrides:
            if one not in self._parsed:
                [self._parsed[one]] = OverridesParser.create().parse_overrides([one])
        return [self._parsed[one] for one in overrides]

    def _of_groups(self, overrides: tuple[str, ...]) -> bytes:
        """The composed config of some choices of groups, pickled: unpickling is five times quicker than a deep copy."""
        if overrides not in self._groups:
            try:
                self._groups[overrides] = pickle.dumps(self.loader.load_sweep_config(self.master, list(overrides)))
            except MissingConfigException as error:
                self._groups[overrides] = self._unknown(overrides) or [str(error)]
            except REFUSED as error:
                self._groups[overrides] = [str(error)]
        if isinstance(found := self._groups[overrides], list):
            raise UserError(*found)
        return found

    def _unknown(self, overrides: tuple[str, ...]) -> list[str]:
        """Every choice that its group does not have, with what it has; Hydra names the first alone."""
        said = []
        for one in self._parse(list(overrides)):
            options, chosen = self.loader.get_group_options(one.key_or_group), one.value()
            if isinstance(chosen, str) and chosen not in options:
                near, among = did_you_mean(chosen, options), ", ".join(options)
                said.append(f"{one.input_line}: no such option.{near} There are {among}.")
        return said


def _set(one: Override, composed: DictConfig) -> str | None:
    """Change a value as Hydra does; what is wrong with it, if it cannot be."""
    try:
        ConfigLoaderImpl._apply_overrides_to_config([one], composed)
    except REFUSED as error:
        if unknown := _unknown_part(one.key_or_group, composed):
            return unknown
        if error.__cause__:  # OmegaConf's own, with its names of things below
            return f"{one.input_line}: {str(error.__cause__).splitlines()[0]}"
        return f"{one.input_line}: {' '.join(str(error).split())}"
    return None


def _unknown_part(key: str, composed: DictConfig) -> str | None:
    """What to say of a dotted name of which a part is not there."""
    parts = key.split(".")
    for i, part in enumerate(parts):
        group = OmegaConf.select(composed, ".".join(parts[:i])) if i else composed
        if not OmegaConf.is_dict(group) or not is_dataclass(OmegaConf.get_type(group)):
            return None
        if part not in group:
            chosen = composed.hydra.runtime.choices.get(parts[0])
            return settings.no_such_setting(".".join(parts[: i + 1]), group, f"{parts[0]}={chosen}" if chosen else "")
    return None
