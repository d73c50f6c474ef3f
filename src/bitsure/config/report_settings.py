"""The metric and verdict settings of a report: those of conf/, overridden by those of the run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitsure.base.errors import UserError
from bitsure.config import own_code, schema
from bitsure.config.hydra_errors import lines_of
from bitsure.config.metric import MetricSettings
from bitsure.config.paths import CONF
from bitsure.config.run_config import read_run_config
from bitsure.config.schema import VerdictSettings
from bitsure.config.validation import check_keys


def read_report_settings(
    run_config: Path | None = None, metric_name: str | None = None, config_dir: Path | None = None
) -> tuple[MetricSettings, VerdictSettings]:
    """Return the settings with which metrics and the verdict are computed from a run's records.

    A run directory may come from anywhere. Its config.yaml is read as plain values: nothing in it is resolved or imported, and
    functions that `metric.own` names are left out. Only an option that the user names brings such functions.

    Args:
        run_config: The run's config.yaml; the settings of conf/ hold for None, and where there is no such file.
        metric_name: An option of conf/metric that replaces the run's own metric settings.
        config_dir: A folder with options of the user's own, such as metric/mine.yaml; None for those of conf/ alone.

    Raises:
        UserError: If there is no such option, or a setting of the run is unknown or has a value that is not allowed.
    """
    composed = _compose(metric_name or "standard", config_dir)
    if run_config is not None and run_config.is_file():
        groups = ("verdict",) if metric_name else ("verdict", "metric")
        content = read_run_config(run_config)
        try:
            _update(composed, {group: content[group] for group in groups if content.get(group)})
        except UserError as error:
            raise UserError(*(f"{run_config}: {line}" for line in error.args)) from error
    metric, verdict = OmegaConf.to_object(composed.metric), OmegaConf.to_object(composed.verdict)
    assert isinstance(metric, MetricSettings) and isinstance(verdict, VerdictSettings)
    return metric, verdict


def check_report_settings(groups: dict[str, Any]) -> None:
    """Raise UserError if a run's `metric` or `verdict` settings are not those of this version."""
    _update(_compose("standard", None), groups)


def own_metric_names(run_config: Path) -> list[str]:
    """Return the names of a run's metrics from its user's own code, which `read_report_settings` leaves out."""
    metric = read_run_config(run_config).get("metric") if run_config.is_file() else None
    own = metric.get("own") if isinstance(metric, dict) else None
    return list(map(str, own)) if isinstance(own, dict | list) else []


def _compose(metric_name: str, config_dir: Path | None) -> DictConfig:
    """Return settings that the caller may change."""
    return deepcopy(_shipped(metric_name)) if config_dir is None else _compose_anew(metric_name, config_dir)


@functools.cache
def _shipped(metric_name: str) -> DictConfig:
    """Return the settings of conf/, which Hydra takes long to compose and a command of many runs asks for again and again."""
    return _compose_anew(metric_name, None)


def _compose_anew(metric_name: str, config_dir: Path | None) -> DictConfig:
    from hydra import compose, initialize_config_dir

    overrides = [f"metric={metric_name}"]
    folders = [CONF] if config_dir is None else [CONF, config_dir]
    if config_dir is not None:
        own_code.add_to_path(config_dir)
        overrides.append(f"hydra.searchpath=['file://{config_dir.resolve()}']")
    options = sorted(path.stem for folder in folders for path in (folder / "metric").glob("*.yaml"))
    if metric_name not in options:
        raise UserError(f"--metric {metric_name}: allowed are {', '.join(options)}.")
    schema.register()
    file = next(path for folder in reversed(folders) if (path := folder / "metric" / f"{metric_name}.yaml").is_file())
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=overrides)
        check_keys(composed.metric, "metric.")
        OmegaConf.to_object(composed.metric)  # checks the values
        OmegaConf.set_struct(composed.metric, True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{file}: {' '.join(lines_of(error))}") from error
    except UserError as error:
        raise UserError(*(f"{file}: {line}" for line in error.args)) from error
    return composed


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, name)
    else:
        yield name, node


def _update(composed: DictConfig, groups: dict[str, Any]) -> None:
    """Override settings by those of a run; raise UserError where one is unknown, or no plain value."""
    for group, values in groups.items():
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise UserError(f"{group} is no group of settings.")
        for key, value in _leaves(values):
            if isinstance(value, str) and "${" in value:
                raise UserError(f"{group}.{key}={value}: a run's config.yaml holds values only, no ${{…}}.")
        known = {key: value for key, value in values.items() if key != "own"}
        try:
            merged = OmegaConf.merge(composed[group], known)
            OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise UserError(f"{group}: {str(error).splitlines()[0]}") from error
        composed[group] = merged
