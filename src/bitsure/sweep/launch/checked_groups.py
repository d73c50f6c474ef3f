"""Checking the settings of many cells, of which most have most groups in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitsure.config.schema import Config
from bitsure.config.validation import check_together, to_dataclasses


class CheckedGroups:
    """Typed groups of settings whose values were checked, by what was composed for them."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Any] = {}

    def config(self, composed: DictConfig, choices: Mapping[str, str]) -> Config:
        """Return the typed config, as `to_dataclasses` does.

        Cells share the objects of equal groups, which nothing changes.
        """
        try:
            plain = OmegaConf.to_container(composed, resolve=True)
        except OmegaConfBaseException:
            return to_dataclasses(composed, choices)  # raises what there is to say
        assert isinstance(plain, dict)
        keys = {str(name): (str(name), repr(values)) for name, values in plain.items()}  # repr tells 1, 1.0 and true apart
        if not all(key in self._groups for key in keys.values()):
            config = to_dataclasses(composed, choices)
            self._groups |= {key: getattr(config, name) for name, key in keys.items()}
            return config
        config = Config(**{name: self._groups[key] for name, key in keys.items()})
        check_together(config)
        return config
