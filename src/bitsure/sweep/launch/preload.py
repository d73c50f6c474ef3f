"""Import what cells need of libraries, once for all of them: they are forked from a process that has imported this module."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from bitsure.sweep.launch import gpus

MODULES = [
    "bitsure.run.pipeline",
    "bitsure.scoring.harness",
    "bitsure.scoring.local.local_engine",
    "bitsure.quantize.proof.weight_changes",
    "wandb",
    "wandb.sdk.launch",
    "scipy.stats",
    "scipy.optimize",
    "scipy.signal",
    "vl_convert",
]
if not gpus.visible(None) and not any(Path("/dev").glob("nvidia*")):
    # Every model's code begins with it. It imports torchao, which looks for GPUs; a process forked after that cannot use one.
    MODULES.append("transformers.modeling_layers")


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Send stderr nowhere within the block, by its number: libraries' loggers keep the Python object."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        before = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


with _without_stderr():
    for name in MODULES:
        with suppress(
            ImportError, OSError, RuntimeError
        ):  # a library that is missing or broken: the cell that needs it says so
            import_module(name)
gc.collect()
gc.freeze()  # what cells have in common is never searched for garbage, nor copied for that
atexit.register(gc.unfreeze)  # at its own end, where Triton's bindings print what is not freed
