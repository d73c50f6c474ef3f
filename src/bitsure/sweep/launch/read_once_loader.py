"""Hydra's loader for the many compositions of one command: it does once what is the same in all of them."""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace
from itertools import takewhile

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from typing_extensions import override

BEGINNING = ResultDefault(config_path="the merged beginning")


class ReadOnceLoader(ConfigLoaderImpl):
    """Composes as another loader does: reads each file once, and merges once what all compositions begin with.

    Those are Hydra's own settings and the schema, two thirds of the work.

    Args:
        loader: Has the search path.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        super().__init__(loader.get_search_path())
        self._read: dict[str, ConfigResult | None] = {}
        self._beginning: list[ResultDefault] | None = None  # of all lists of defaults so far
        self._merged: DictConfig | None = None  # the beginning, once a second composition needs it

    @override
    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = OverridesParser.create().parse_overrides(overrides)
        repository = CachingConfigRepository(self.repository)
        repository.cache = self._read
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository

    @override
    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if self._beginning is None:
            self._beginning = list(defaults)
            return super()._compose_config_from_defaults_list(defaults, repo)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._beginning, defaults, strict=False)))
        if self._merged is None or same < len(self._beginning):
            self._beginning = defaults[:same]
            self._merged = super()._compose_config_from_defaults_list(self._beginning, repo)
        return super()._compose_config_from_defaults_list([BEGINNING, *defaults[same:]], repo)

    @override
    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        # Hydra merges other settings into what is returned, which has to be a copy.
        if default is BEGINNING:
            assert self._merged is not None, "it stands for what was composed"
            return ConfigResult("bitsure", "", deepcopy(self._merged), {"package": None})
        assert isinstance(repo, CachingConfigRepository) and default.config_path is not None
        result, copies = repo.load_config(default.config_path), copy(repo)
        assert result is not None
        copies.cache = {f"config_path={default.config_path}": replace(result, config=deepcopy(result.config))}
        return super()._load_single_config(default, copies)
