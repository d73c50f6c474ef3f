"""The options of conf/ for people: models by family, quantizers by method, each with a line on what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bitsure.config.paths import CONF

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ANY_OTHER = "any other"  # the options local and hub


@dataclass(frozen=True)
class Option:
    """An option of a group: a file in conf/."""

    name: str
    comment: str
    """The first line of its file, where that is a comment."""
    content: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """The settings of a model; none for options of other groups."""
        model = self.content.get("model")
        return model if isinstance(model, dict) else {}


@dataclass(frozen=True)
class OptionFamily:
    """Options that belong together."""

    name: str
    comment: str
    options: list[Option]


def options(group: str, folders: Sequence[Path] = (CONF,)) -> list[Option]:
    """Return the options of a group, such as `model`, in folders of configs, by name."""
    files = {file.stem: file for folder in folders for file in sorted((folder / group).glob("*.yaml"))}
    return [_read(file) for _, file in sorted(files.items())]


def families(group: str, folders: Sequence[Path] = (CONF,)) -> list[OptionFamily]:
    """Return the options of a group, those together that are of one kind.

    Models are of one kind by their architecture. Others are where their files build on one, by their defaults lists, whose
    own comment says what they are.
    """
    known = {option.name: option for option in options(group, folders)}
    members: dict[str, list[Option]] = {}
    for option in known.values():
        members.setdefault(_family(option, known), []).append(option)
    return [
        OptionFamily(name, known[name].comment if name in known else "", family) for name, family in sorted(members.items())
    ]


def own_bits(option: Option, known: dict[str, Option]) -> str:
    """Return what a quantizer's file and those that it builds on round, such as `4-bit weights, 8-bit activations`.

    Args:
        option: The quantizer.
        known: Name → option of the whole group.
    """
    chain = [option]
    while (parent := _parent(chain[0])) in known:
        chain.insert(0, known[parent])
    bits: dict[str, Any] = {}
    for file in chain:
        if "bits" in file.content:
            bits["weights"] = file.content["bits"]
        for name, what in (("activations", "activations"), ("kv", "keys and values")):
            if "bits" in (settings := file.content.get(name) or {}):
                bits[what] = settings["bits"]
    if not isinstance(bits.get("weights"), int):  # another format, or what every preset has to set
        bits.pop("weights", None)
    return ", ".join(f"{value}-bit {what}" if value else f"{what} as they are" for what, value in bits.items())


def preset_of(repo: str) -> str | None:
    """Return the option of conf/model for a repository of the hub; None where there is none."""
    return next((model.name for model in options("model") if model.model.get("repo", "").lower() == repo.lower()), None)


def _family(option: Option, known: dict[str, Option]) -> str:
    if option.model:
        return str(option.model.get("family") or option.model.get("series") or ANY_OTHER)
    while not option.comment and (parent := _parent(option)) in known:
        option = known[parent]
    return option.name


def _parent(option: Option) -> str:
    first = next(iter(option.content.get("defaults", ())), None)
    return first if isinstance(first, str) else ""


def _read(file: Path) -> Option:
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    comment = lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""
    content = yaml.load(text, Loader=LOADER)
    return Option(file.stem, comment, content if isinstance(content, dict) else {})
