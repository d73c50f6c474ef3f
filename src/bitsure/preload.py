"""What a cell takes from libraries, imported once for all cells: they are forked from a process that has done this."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from bitsure import gpus, terminal

MODULES = ["bitsure.pipeline", "bitsure.scoring.harness", "bitsure.quantize.verify", "wandb", "wandb.sdk.launch"]
MODULES += ["scipy.stats", "scipy.optimize", "scipy.signal", "matplotlib.figure", "matplotlib.backends.backend_agg"]
# every model's code begins with it; it brings torchao, which looks for GPUs, and who is forked after that cannot use one
MODULES += [] if gpus.visible(os.environ.get("CUDA_VISIBLE_DEVICES")) else ["transformers.modeling_layers"]

with terminal.output_to(Path(os.devnull)):
    for name in MODULES:
        with suppress(ImportError):  # the cell says it where it needs it
            import_module(name)
gc.collect()
gc.freeze()  # what cells have in common is never searched for garbage, nor copied for that
