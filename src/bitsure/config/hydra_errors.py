"""What Hydra refuses on the command line or in a YAML file, in sentences that say what is allowed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bitsure.base.errors import did_you_mean
from bitsure.config.option_groups import preset_of
from bitsure.config.own_code import no_such_config_dir
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.schema import Config
from bitsure.config.validation import kind_needed, no_such_setting

RAISE = "HYDRA_FULL_ERROR"  # the environment variable with which Hydra raises its errors instead of printing them
GROUPS = tuple(field.name for field in fields(Config))
SWEEPS = PROJECT / "sweeps"
FILE_OPTIONS = {"text": "local", "calib": "text"}  # the options that read a file of the user's
_GIVEN = os.environ.get(RAISE)


@contextmanager
def sentences() -> Iterator[None]:
    """Exit with a sentence where Hydra cannot compose the settings; with a traceback if HYDRA_FULL_ERROR is set."""
    os.environ.setdefault(RAISE, "1")
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if _GIVEN is not None:
            raise
        sys.exit(f"Error: {sentence(error)}")
    finally:
        settings_are_composed()


def settings_are_composed() -> None:
    """Leave later errors to Hydra, which prints their traceback."""
    if _GIVEN is None:
        os.environ.pop(RAISE, None)


def sentence(error: Exception) -> str:
    """Return what is wrong with a setting, an option or a file, with the nearest that is allowed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_file(error, error.missing_cfg_file)
    if isinstance(error, SearchPathException) and (match := re.search(r"directory '(.*)' not found", str(error))):
        return no_such_config_dir(Path(match[1]))
    if isinstance(error, OverrideParseException):
        first = lines_of(error)[0]
        why = "" if first.startswith("Error parsing") else f" ({first})"
        shown = re.sub(r"(url=).*", r"\1…", str(error.override))  # The query of an address may hold a key.
        return (
            f"{shown}: this cannot be read as a setting{why}. Write key=value, and put a value with spaces, commas, =, or "
            "brackets in quotes, such as 'task.names=[arc_easy,piqa]'."
        )
    refused = error.__cause__ or error
    if isinstance(refused, ConfigAttributeError | ConfigKeyError) and isinstance(refused.parent_node, DictConfig):
        return no_such_setting(str(refused.full_key), refused.parent_node)
    if match := re.match(r"Ambiguous value for argument '(.*?)=(.*)'\n|Sweep parameters '(.*?)=(.*)' requires", str(error)):
        key, value = filter(None, match.groups())
        return f"{key}={value}: one run has one value. For a run of each add -m in front; a list is '{key}=[{value}]'."
    if match := re.match(r"(\S+) appears more than once in the final defaults list", str(error)):
        return f"+{match[1]}=…: {match[1]} has an option already. Leave out the +."
    override = str(error).partition("Error merging override ")[2]
    if override and isinstance(refused, OmegaConfBaseException):
        return refused_value(override, lines_of(refused)[0])
    return " ".join(lines_of(error) + (lines_of(refused) if refused is not error else []))


def refused_value(override: str, why: str) -> str:
    """Return what is wrong with a value whose type a setting does not have.

    Args:
        override: The override, such as `task.names=piqa`.
        why: OmegaConf's own reason.
    """
    key, _, value = override.lstrip("+").partition("=")
    if "is not a ListConfig" in why:
        return f"{override}: a list is needed, such as '{key}=[{value}]'."
    return f"{override}: {kind_needed(why)}{_settings_of(key)}."


def _settings_of(key: str) -> str:
    """Return the settings of a group, for messages; empty for what is no group of every run."""
    kind: Any = Config
    for part in key.split("."):
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return ": " + ", ".join(f"{key}.{field.name}" for field in fields(kind)) if is_dataclass(kind) else ""


def no_such_option(group: str, option: str, known: Sequence[str]) -> str:
    """Return the error message for an option that its group does not have.

    Args:
        group: The group, such as `model`.
        option: What was given for it.
        known: The options that there are.
    """
    message = f"{group}={option}: no such option."
    if group == "model" and option.lower().endswith(".gguf"):
        return f"{message} A GGUF file is given as model=gguf model.path={option}."
    if group == "model" and (Path(option).is_dir() or option.startswith(("/", ".", "~"))):
        return f"{message} A directory is given as model=local model.path={option}."
    if group == "model" and "/" in option:
        preset = preset_of(option)
        named = f" model={preset} is that repository." if preset else ""
        return f"{message}{named} Any repository of the hub is given as model=hub model.repo={option}."
    if group in FILE_OPTIONS and Path(option).is_file():
        return f"{message} A file is given as {group}={FILE_OPTIONS[group]} {group}.path={option}."
    others = [other for other in GROUPS if other != group and (CONF / other / f"{option}.yaml").is_file()]
    if others:
        return f"{message} It is one of {others[0]}: {others[0]}={option}."
    if group == "task":
        return (
            f"{message}{did_you_mean(option, known)} There are {', '.join(known)}. Tasks of lm-evaluation-harness are given by "
            f"their names: 'task.names=[{option}]'."
        )
    listed = (
        f"`bitsure list {group}s` prints all {len(known)}" if group in ("model", "quant") else f"There are {', '.join(known)}"
    )
    return f"{message}{did_you_mean(option, known)} {listed}."


def lines_of(error: BaseException) -> list[str]:
    """Return the lines of an error that name the mistake and the key, without Hydra's own about composing."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith(("object_type=", "reference_type="))]


def _missing_file(error: MissingConfigException, missing: str) -> str:
    first, _, rest = missing.partition("/")
    group, option = (first, rest) if first in GROUPS else missing.rpartition("/")[::2]
    if group and error.options is not None:
        return no_such_option(group, option, error.options)
    folders = [Path(path) for path in re.findall(r"path=file://(.*)", str(error))]
    names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    if group or not names:
        return " ".join(lines_of(error))
    message = f"--config-name {missing}: no such file.{did_you_mean(missing, names)}"
    if (SWEEPS / f"{missing}.yaml").is_file():
        shown = SWEEPS.relative_to(Path.cwd()) if SWEEPS.is_relative_to(Path.cwd()) else SWEEPS
        return f"{message} It is in {shown}: --config-dir {shown} --config-name {missing} -m."
    return f"{message} There are {', '.join(names)}."
