"""What is composed with the work of other compositions is what Hydra composes by itself, down to each node's type and flags."""

from __future__ import annotations

from collections import Counter

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from omegaconf import Container, DictConfig, Node

from bitsure.config.paths import PROJECT
from bitsure.config.sweep_overrides import expand
from bitsure.sweep.launch.read_once_loader import ReadOnceLoader
from tests.builders.sweep_commands import command

SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))
CELLS = [
    [],
    ["quant=gptq4"],  # what it is without: the second composition has all that the first had
    ["model=pocket-300k", "quant=gptq4", "calib=pocket"],
    ["model=pocket-300k", "quant=gptq4", "calib=random"],
    ["model=pocket-1m", "quant=rotate-w4a4", "calib=story"],
    ["model=opt-125m", "quant=none", "task=paper"],  # the model sets a task, which the cell overrides
    ["model=opt-125m", "quant=none"],
    ["quant@quant.like=rtn3", "quant=noise"],
    ["control=noise", "metric=paper_compat", "verdict=strict"],
    ["hydra/launcher=joblib", "quant=rtn3"],
    ["hydra/job_logging=none", "quant=rtn3"],  # Hydra's own settings differ, with which all others begin
    ["model=pocket-300k", "quant=gptq4", "calib=pocket"],
]


def nodes(node: Node, name: str = "") -> dict[str, object]:
    """Return each node's value as it was written, with what OmegaConf knows of it, by dotted name."""
    known = node._metadata
    inside = isinstance(node, Container) and not (node._is_none() or node._is_missing() or node._is_interpolation())
    about = (type(node), known.ref_type, known.object_type, known.optional, known.flags)
    found: dict[str, object] = {name: (*about, list(node) if isinstance(node, DictConfig) and inside else None)}
    if not inside:
        return {name: (*about, node._value())}
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        found |= nodes(node._get_node(key), f"{name}.{key}")
    return found


@pytest.mark.parametrize("name", ["config", "qbench"])
def test_compositions_are_hydras_own(name):
    with command(name=name) as (master, loader):
        once = ReadOnceLoader(loader)
        for cell in CELLS:
            expected, composed = (nodes(one.load_sweep_config(master, cell)) for one in (loader, once))
            assert composed == expected, cell


@pytest.mark.slow  # each choice of groups is composed twice
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_cells_of_committed_sweeps_are_hydras_own(path):
    with command(name=path.stem) as (master, loader):
        once, groups = ReadOnceLoader(loader), set(loader.list_groups(""))
        params = master.hydra.sweeper.params or {}
        cells = expand([f"{key}={value}" for key, value in params.items() if key in groups], loader)
        for cell in cells:
            expected, composed = (nodes(one.load_sweep_config(master, cell)) for one in (loader, once))
            assert composed == expected, cell


def test_every_file_is_read_once_and_hydras_own_settings_are_merged_once(monkeypatch):
    read, load = Counter(), ConfigRepository.load_config
    merged, merge = Counter(), ConfigLoaderImpl._load_single_config

    def counted_read(repository, config_path):
        read.update([config_path])
        return load(repository, config_path)

    def counted_merge(loader, default, repo):
        merged.update([default.config_path])
        return merge(loader, default, repo)

    monkeypatch.setattr(ConfigRepository, "load_config", counted_read)
    monkeypatch.setattr(ConfigLoaderImpl, "_load_single_config", counted_merge)
    with command() as (master, loader):
        once = ReadOnceLoader(loader)
        read.clear()
        merged.clear()
        for model in ("pocket-300k", "pocket-1m"):
            for quantizer in ("rtn3", "rtn4"):
                once.load_sweep_config(master, [f"model={model}", f"quant={quantizer}"])
    assert set(read) > {"config", "model/pocket-1m", "quant/rtn4"} and set(read.values()) == {1}
    assert merged["hydra/config"] == merged["schema"] == 2 and merged["metric/standard"] == 4  # by itself, and as the beginning
