"""The cells that a sweep's command line names, composed without running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from bitsure.config import schema
from bitsure.config.paths import PROJECT
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell
from bitsure.sweep.launch.composing import compose_cells

schema.register()

SWEEP = [
    "-m",
    "model=pocket-300k",
    "quant=rtn2,rtn3,none",
    "task.names=[pocket_recall]",
    "task.limit=10",
    "metric.resamples=100",
    "tracking.mode=disabled",
    "hydra.sweep.dir=sweep",
]
CELLS = ["0-pocket-300k-rtn2", "1-pocket-300k-rtn3", "2-pocket-300k-none"]


@contextmanager
def command(*overrides: str, name: str = "config") -> Iterator[tuple[DictConfig, ConfigLoader]]:
    """Yield what Hydra gives a callback for `main.py -m --config-dir sweeps --config-name NAME OVERRIDES`."""
    places = create_config_search_path(str(PROJECT / "conf"))
    places.prepend("command-line", f"file://{PROJECT / 'sweeps'}", SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2("main", places)
    try:
        loader = GlobalHydra.instance().config_loader()
        yield loader.load_configuration(name, list(overrides), run_mode=RunMode.MULTIRUN), loader
    finally:
        GlobalHydra.instance().clear()


def compose(*overrides: str, name: str = "config") -> tuple[list[ComposedCell], CellErrors]:
    """Return the cells of a command line, and what is wrong with the others."""
    with command(*overrides, name=name) as (master, loader):
        return compose_cells(master, loader)


def compose_valid(*overrides: str, name: str = "config") -> list[ComposedCell]:
    """Return the cells of a command line with which nothing is wrong."""
    cells, errors = compose(*overrides, name=name)
    assert errors.lines() == []
    return cells


def compose_errors(*overrides: str) -> list[str]:
    """Return what is wrong with the cells of a command line."""
    return compose(*overrides)[1].lines()
