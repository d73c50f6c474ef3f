"""A default stands in one place: in conf/ or in a dataclass, never in both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from omegaconf import MISSING, OmegaConf

from bitsure.base.dotted_names import import_named
from bitsure.config.paths import CONF
from bitsure.config.schema import Config

KINDS = {group: kind for group, kind in get_type_hints(Config).items() if kind is not bool}
FILES = sorted(CONF / group / path.name for group in KINDS for path in (CONF / group).glob("*.yaml"))
SIBLINGS = {path.stem for path in FILES}
HYDRAS = ("defaults", "hydra")


def leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def own(path: Path) -> dict[str, Any]:
    """The settings that a file gives itself."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    settings = {key: value for key, value in content.items() if key not in HYDRAS}
    return dict(leaves(settings["model"] if path.parent.name == "model" and "model" in settings else settings))


def inherited(path: Path) -> dict[str, Any]:
    """The settings of the options that a file builds on."""
    settings: dict[str, Any] = {}
    for option in OmegaConf.load(path).get("defaults", []):
        if isinstance(option, str) and option in SIBLINGS:  # a file of the same group
            parent = path.with_name(f"{option}.yaml")
            settings |= inherited(parent) | own(parent)
    return settings


def defaults(kind: type) -> dict[str, Any]:
    return dict(leaves(OmegaConf.to_container(OmegaConf.structured(kind))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_option_repeats_no_default_of_its_class_or_of_an_option_it_builds_on(path):
    settings, above = own(path), inherited(path)
    target = (above | settings).get("_target_")
    fixed = defaults(import_named(target, path.stem) if target else KINDS[path.parent.name]) | above
    repeated = {name for name, value in settings.items() if name in fixed and fixed[name] == value != MISSING}
    assert not repeated, f"{path} repeats {', '.join(sorted(repeated))}"


def test_the_main_file_repeats_no_default():
    repeated = set()
    for name, value in own(CONF / "config.yaml").items():
        group, _, setting = name.partition(".")
        if (defaults(KINDS[group])[setting] if setting else defaults(Config)[name]) == value:
            repeated.add(name)
    assert not repeated
