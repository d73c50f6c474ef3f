"""Measure how long a sweep's cells take to compose: `make bench-sweep` writes it into benchmarks/sweep.md."""

from __future__ import annotations

import resource
import time

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from bitsure.config import schema
from bitsure.config.paths import PROJECT
from bitsure.sweep.launch.composing import compose_cells

COLUMNS = ("cells", "seconds", "CPU seconds")
MODELS = "model=pocket-300k,pocket-1m,opt-125m,opt-350m,opt-1.3b"
QUANTIZERS = "quant=rtn8,rtn4,rtn3,rtn2,gptq8,gptq4,gptq3,gptq2,awq4,mxfp4"
SEEDS = "calib.seed=range(20)"
CELLS = 5 * 10 * 20


def seconds() -> tuple[float, float]:
    """Return seconds and CPU seconds, all processes together, of composing a sweep of 1,000 cells."""
    schema.register()
    with initialize_config_dir(str(PROJECT / "conf"), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [MODELS, QUANTIZERS, SEEDS], run_mode=RunMode.MULTIRUN)
        began, spent = time.perf_counter(), _cpu()
        cells, errors = compose_cells(master, loader)
    assert len(cells) == CELLS and not errors.lines(), errors.lines()
    return time.perf_counter() - began, _cpu() - spent


def table() -> str:
    """Return the table in Markdown."""
    elapsed, cpu = seconds()
    return f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n| {CELLS:,} | {elapsed:.0f} | {cpu:.0f} |"


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    print(table())
