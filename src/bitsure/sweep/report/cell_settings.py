"""The settings of a finished cell, from its config.yaml: what a report reads of them fits its type, the rest is as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config.report_settings import check_report_settings
from bitsure.config.run_config import read_run_config
from bitsure.config.schema import TrackingSettings
from bitsure.results import check
from bitsure.results.result import Integer


class _Group(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str | None = None


class _QuantGroup(_Group):
    bits: int | float | None = None


class _CalibGroup(_Group):
    nsamples: Integer | None = None
    seqlen: Integer | None = None
    seed: Integer | None = None


class _TaskGroup(_Group):
    names: list[str] = []


class _MetricGroup(BaseModel):
    own: dict[str, str] | list[str] | None = None


class NamedSettings(BaseModel):
    """The settings whose values the report of a sweep reads; groups may have any others."""

    model: _Group = _Group()
    quant: _QuantGroup = _QuantGroup()
    calib: _CalibGroup = _CalibGroup()
    task: _TaskGroup = _TaskGroup()
    metric: _MetricGroup = _MetricGroup()
    tracking: TrackingSettings | None = None


def read_cell_settings(file: Path, memo: Memo) -> dict[str, Any]:
    """Return the groups of config.yaml; none where there is no such file.

    Raises:
        UserError: If it is not a run's, or a setting that the report reads does not fit its type.
    """
    if not file.is_file():
        return {}
    config = read_run_config(file)
    check(config, NamedSettings, file)
    try:
        memo(check_report_settings, {name: config[name] for name in ("metric", "verdict") if config.get(name)})
    except UserError as error:
        raise error.prefixed(f"{file}: ") from error
    return {name: group for name, group in config.items() if isinstance(group, dict)}
