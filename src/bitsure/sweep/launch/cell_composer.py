"""Compose one cell of a sweep as Hydra does, or say everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bitsure.base.errors import UserError
from bitsure.config.hydra_errors import lines_of, no_such_option, refused_value, sentence
from bitsure.config.labels import quantizer_label
from bitsure.config.validation import check_choices, no_such_setting
from bitsure.results import Labels
from bitsure.sweep.launch.checked_groups import CheckedGroups
from bitsure.sweep.launch.composed_cell import ComposedCell
from bitsure.sweep.launch.read_once_loader import ReadOnceLoader

REFUSALS = (HydraException, OmegaConfBaseException, ValueError, AssertionError)  # what Hydra raises at what it cannot set

Job = tuple[int, list[str]]  # a cell's number and what its command changes
Outcome = ComposedCell | tuple[str, ...]  # a cell, or everything that is wrong with it


class _ComposedChoices(NamedTuple):
    """What Hydra composes for choices of groups."""

    settings: DictConfig
    hydra: DictConfig


class CellComposer:
    """Composes cells with Hydra's loader. Each choice of groups is composed once and copied, which is much faster.

    Args:
        master: The sweep's config, as Hydra gives it to a callback.
        loader: Hydra's, which has composed `master`.
    """

    def __init__(self, master: DictConfig, loader: ConfigLoader) -> None:
        self.master, self.loader = master, loader
        self._loader_for_choices = ReadOnceLoader(loader)
        self._checked = CheckedGroups()
        self._composed: dict[tuple[str, ...], _ComposedChoices | UserError] = {}

    def __call__(self, job: Job) -> Outcome:
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
                hydra_settings = DictConfig({"hydra": composed.pop("hydra")}, flags={"no_deepcopy_set_nodes": True})
                OmegaConf.copy_cache(composed, hydra_settings)  # `${now:…}` is of one time
                with _hydra_config(hydra_settings):
                    config = self._checked.config(composed, choices)
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
        changes_hydra = any(value.key_or_group.startswith("hydra.") for value in values)
        composed = self._compose_choices(tuple(choices), changes_hydra)
        with read_write(composed):
            errors = [message for value in values if (message := self._set(value, composed, choices))]
            self._note(parsed, composed)
        if not errors and not all(map(_is_plain, values)):
            composed = self._load(overrides)
        return composed, errors

    def _note(self, parsed: list[Override], composed: DictConfig) -> None:
        """Set what Hydra's own settings say of a cell's overrides, to which other settings may refer."""
        of_task = [override for override in parsed if not override.is_hydra_override()]
        of_hydra = [override.input_line for override in parsed if override.is_hydra_override()]
        of_sweep = OmegaConf.to_container(self.master.hydra.overrides.hydra)  # with `${hydra:…}` as they were written
        composed.hydra.overrides.task = [override.input_line for override in of_task]
        composed.hydra.overrides.hydra = [*cast("list[str]", of_sweep), *of_hydra]
        composed.hydra.job.override_dirname = get_overrides_dirname(of_task, **composed.hydra.job.config.override_dirname)

    def _compose_choices(self, choices: tuple[str, ...], changes_hydra: bool) -> DictConfig:
        """Return a copy of what Hydra composes for choices of groups. Raises UserError for what it refuses.

        Hydra's own settings, two thirds of all, are copied only for a cell that changes them.
        """
        if choices not in self._composed:
            try:
                self._composed[choices] = _apart(self._load(list(choices), self._loader_for_choices))
            except UserError as error:
                self._composed[choices] = error
        result = self._composed[choices]
        if isinstance(result, UserError):
            raise result
        composed = deepcopy(result.settings)
        with read_write(composed), open_dict(composed), flag_override(composed, "no_deepcopy_set_nodes", True):
            composed.hydra = deepcopy(result.hydra) if changes_hydra else result.hydra
        return composed

    def _load(self, overrides: list[str], loader: ConfigLoader | None = None) -> DictConfig:
        """Compose as Hydra does for a cell. Raises UserError for what it refuses."""
        try:
            return (loader or self.loader).load_sweep_config(self.master, overrides)
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
        if chosen is None or isinstance(chosen, list) or str(chosen) in options:
            return None
        return no_such_option(override.key_or_group, str(chosen), options)


def _apart(composed: DictConfig) -> _ComposedChoices:
    with read_write(composed), open_dict(composed):
        return _ComposedChoices(hydra=composed.pop("hydra"), settings=composed)


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


def unresolved(node: DictConfig, key: str) -> str:
    """Return a value with its `${…}` as they were written."""
    values = OmegaConf.to_container(node)
    return str(values.get(key)) if isinstance(values, dict) else ""
