"""What --help says: the options of every group, and every setting with its value and a line on what it is."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from omegaconf import DictConfig, OmegaConf

from bitsure.config.gptq_settings import GptqSettings
from bitsure.config.option_groups import families
from bitsure.config.quantizers import Tuning
from bitsure.config.schema import Config

WIDEST = 120  # columns
FEW = 25  # options that are listed without their families
CLASSES: dict[str, type[Any]] = {"quant": GptqSettings}  # the default's, which has the settings of most quantizers


def register() -> None:
    """Make `${options_help:}` and `${settings_help:}`, of which conf/config.yaml makes --help, known to Hydra."""

    def options_text(*, _root_: DictConfig) -> str:
        return options_help(_root_)

    def settings_text(*, _root_: DictConfig) -> str:
        return settings_help(_root_)

    OmegaConf.register_new_resolver("options_help", options_text, replace=True)
    OmegaConf.register_new_resolver("settings_help", settings_text, replace=True)


def options_help(composed: DictConfig) -> str:
    """Return the groups with their options."""
    sources = composed.hydra.runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    return "\n".join(
        _group(field.name, folders) for field in fields(Config) if any((at / field.name).is_dir() for at in folders)
    )


def settings_help(composed: DictConfig) -> str:
    """Return every setting with its value and what it is."""
    lines = (
        _wrapped(f"{setting.key}={_value(composed, setting)}", setting.comment.replace("None", "null"))
        for setting in settings()
    )
    return "\n".join(lines).replace("$", "$$")


class Setting(NamedTuple):
    """A setting, and what its class says of it."""

    key: str
    """The dotted name."""
    default: object
    comment: str


@cache
def settings() -> list[Setting]:
    """Return every setting, with the comment that stands behind it, or above it, in its class."""
    return list(_settings(Config, ""))


def _settings(kind: type[Any], above: str) -> Iterator[Setting]:
    comments, types = _comments(kind), get_type_hints(kind)
    for field in fields(kind):
        key = f"{above}{field.name}"
        parts = getattr(types[field.name], "__args__", (types[field.name],))
        nested = CLASSES.get(key) or next((part for part in parts if is_dataclass(part)), None)
        if isinstance(nested, type):
            yield from _settings(nested, f"{key}.")
        else:
            yield Setting(key, field.default, comments.get(field.name, ""))
    if kind is GptqSettings:
        yield from _settings(Tuning, "quant.tuning.")


def _comments(kind: type[Any]) -> dict[str, str]:
    """Return field → comment of a class and those that it derives from, as their source has them."""
    comments: dict[str, str] = {}
    for each in filter(is_dataclass, reversed(kind.__mro__)):
        above: list[str] = []
        for line in inspect.getsource(each).splitlines():
            if match := re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line):
                comments[match[1]] = match[2] or " ".join(above) or comments.get(match[1], "")
            above = [*above, line.strip("# ")] if line.startswith("    # ") else []
    return comments


def _value(composed: DictConfig, setting: Setting) -> object:
    """Return a setting's value as it was composed; its default where an option leaves it to the class."""
    group, _, name = setting.key.rpartition(".")
    node = OmegaConf.select(composed, group) if group else composed
    if not isinstance(node, DictConfig) or name not in node:
        value = None if setting.default is dataclasses.MISSING else setting.default
    elif OmegaConf.is_missing(node, name):
        return "…"
    else:
        value = node[name]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def _group(name: str, folders: list[Path]) -> str:
    """Return a group's options: those of large groups by family."""
    kinds = families(name, folders)
    names = [option.name for kind in kinds for option in kind.options]
    if len(names) <= FEW:
        return _wrapped(f"{name}:", ", ".join(sorted(names)))
    several = {kind.name: [option.name for option in kind.options] for kind in kinds if len(kind.options) > 1}
    several["others"] = [option.name for kind in kinds if len(kind.options) == 1 for option in kind.options]
    lines = [_wrapped(f"  {family}:", " ".join(members)) for family, members in several.items()]
    return "\n".join([f"{name}: ({len(names)}, see also bitsure list {name}s)", *lines])


def _wrapped(head: str, text: str) -> str:
    """Return a line that breaks between words only, and goes on behind an indent."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    indent = " " * (len(head) - len(head.lstrip()) + 6)
    first, *rest = textwrap.wrap(
        f"{head.lstrip()}  {text}", width - 4, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )
    return "\n".join([head[: len(head) - len(head.lstrip())] + first, *rest])
