"""GPTQ on a GPU, our own and gptqmodel's, each in a process of its own: a part of `make bench-gpu`."""

from __future__ import annotations

import importlib
import resource
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import alone
from benchmarks.gpu_models import BLOCKS, DEVICE, DTYPE, MODELS, ON_GPU, SEQLEN, WINDOWS, build_model
from benchmarks.gpu_table import Table, free
from benchmarks.scoring import timed
from bitsure.config.paths import PROJECT


def quantize_models(table: Table) -> None:
    """Measure GPTQ, our own and gptqmodel's, each in a process of its own."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, blocks in BLOCKS.items():
            _save(name, blocks, Path(folder) / name)
        for way in ("native", "gptqmodel"):  # gptqmodel, which nothing here answers for, last
            for name, blocks in BLOCKS.items():
                run = partial(_quantized, table, way, name, Path(folder), seconds)
                shape = f"{blocks} blocks, {WINDOWS} × {SEQLEN} tokens"
                table.add(run, part="GPTQ, 4 bits", model=name, shape=shape, way=way)
    for name in BLOCKS:
        copied = {"part": "GPTQ, 4 bits", "model": name, "shape": "1 block", "way": "weights to the GPU and back"}
        table.add(partial(_copy_block, name), **copied)


def _copy_block(name: str) -> dict[str, float]:
    """Return how long a block's weights take from main memory to the GPU and back; on a CPU a copy of them."""
    block = build_model(name, num_hidden_layers=1).get_decoder().layers[0].cpu()
    weights = [parameter.data for parameter in block.parameters()]

    def there_and_back() -> list[torch.Tensor]:
        return [weight.to(DEVICE, copy=True).cpu() for weight in weights]

    there_and_back()
    seconds = timed(there_and_back)[0]
    return {"seconds": seconds, "GB/s": 2 * sum(weight.nbytes for weight in weights) / seconds / 1e9}


def _save(name: str, blocks: int, path: Path) -> None:
    from transformers import AutoTokenizer

    build_model(name, num_hidden_layers=blocks).save_pretrained(path)
    free()
    AutoTokenizer.from_pretrained(PROJECT / "pocket" / "models" / "pocket-1m").save_pretrained(path)


def _quantized(table: Table, way: str, name: str, folder: Path, seconds: dict[str, float]) -> dict[str, float]:
    """Return what a way takes in a process of its own, for which some of the part's time is left.

    `seconds` has those of our own way by model, and gets them.
    """
    out = folder / f"{way}-{name}"
    numbers: dict[str, float] = alone.run("benchmarks.gpu", way, folder / name, out, 0.6 * table.left)
    whole = numbers["seconds"] * MODELS[name][1]["num_hidden_layers"] / BLOCKS[name]
    times = {"times native": numbers["seconds"] / seconds[name]} if name in seconds else {}
    if way == "native":
        seconds[name] = numbers["seconds"]
    return numbers | {"whole model, s": whole} | times


def quantize(way: str, path: Path, folder: Path) -> dict[str, float]:
    """Quantize in this process; return seconds and the most memory, GB."""
    from bitsure.base.store import Store
    from bitsure.config.schema import ModelSettings
    from bitsure.models.load import load_model
    from bitsure.models.locate import locate_model
    from bitsure.quantize import QuantizationJob
    from bitsure.quantize.libraries import gptqmodel
    from bitsure.quantize.libraries.gptq import Gptq
    from bitsure.quantize.native import chain

    quant = Gptq(bits=4, group_size=128 if ON_GPU else 32, symmetric=True, desc_act=False, damp_percent=0.01, backend=way)
    out, nothing = folder / "out", lambda *given, **settings: None
    out.mkdir()
    windows = torch.randint(5, 32_000, (WINDOWS, SEQLEN), generator=torch.Generator().manual_seed(1))
    if way == "gptqmodel":
        with gptqmodel._kept_in(folder):
            importlib.import_module("gptqmodel")  # no import is timed
        source = locate_model(ModelSettings(path=str(path)), None)
        job = QuantizationJob(
            source=source,
            dtype=DTYPE,
            windows=windows,
            held_out=windows[:0],
            directory=out,
            parts=out,
            log_file=folder / "log",
            store=Store(folder / "store"),
            advance=nothing,
        )
        seconds = timed(lambda: gptqmodel.quantize(quant, job))[0]
    else:
        load = partial(load_model, path, DTYPE, "cpu")  # as gptqmodel loads it
        seconds = timed(lambda: chain.quantize(load()[0], quant, windows, folder / "parts", out, nothing))[0]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak, GB": (torch.cuda.max_memory_allocated() if ON_GPU else host) / 1e9}
