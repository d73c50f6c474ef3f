"""What a GPU does: `make bench-gpu` writes benchmarks/gpu.md and gpu.json, in less than 8 minutes and without a download.

Models are made on the spot, with random weights. Scoring is measured beside the harness's HFLM at its best batch size, and
beside vLLM where it is installed; GPTQ beside gptqmodel, each in a process of its own, on a few blocks of the shape; KL over
the whole vocabulary beside plain passes. The share of the peak is the least multiply-adds that give the numbers, over the
seconds, over the peak of the device's data sheet, or, for a device that is not known here, over the rate of a large matrix
product in the same run and type.

Three more parts say what further work could gain: attention in parts or nested beside one masked kernel; how long the GPU
computes while questions are scored, since CUDA graphs can shorten only the rest; and how long a block's weights take to the GPU
and back.

Without a GPU `--miniature` runs the same code on tiny models and writes nothing: a CPU's numbers say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import alone, attention, fidelity
from benchmarks.gpu_gptq import quantize, quantize_models
from benchmarks.gpu_models import (
    BATCH_SIZES,
    DEVICE,
    DTYPE,
    MODELS,
    NAMES,
    ON_GPU,
    PART,
    build_model,
    matrix_peak,
    requests_of,
)
from benchmarks.gpu_table import Table, free, published_peak
from benchmarks.multiply_adds import multiply_adds, timed
from benchmarks.random_questions import SHAPES, Shape
from bitsure.base.resources import watch_memory
from bitsure.scoring.local import patches
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import trees
from bitsure.scoring.requests import Request, input_tokens


def score_models(table: Table) -> None:
    """Measure scoring: HFLM at each batch size, the local engine, vLLM."""
    shapes = [shape for shape in SHAPES if shape.name in NAMES]
    product = matrix_peak()
    table.about[f"a product of two large matrices, {DTYPE}"] = f"{2 * product / 1e12:.4g} TFLOP/s"
    published = published_peak(torch.cuda.get_device_name()) if ON_GPU else None
    table.about["peak"] = f"{2 * published / 1e12:.4g} TFLOP/s (data sheet)" if published else "that of the product"
    for name in MODELS:
        model = build_model(name)
        engine = LocalEngine(model, 2048)
        for shape in shapes:
            requests = requests_of(shape, name, model.config.vocab_size)
            least = _least_multiply_adds(model, requests)
            what = {"part": "scoring", "model": name, "shape": shape.name}
            measure = partial(_speed, requests=requests, least=least, peak=published or product)
            hflm = [
                table.add(partial(measure, run=_hflm(model, size), repeats=1), **what, way=f"HFLM, batch {size}")
                for size in BATCH_SIZES
            ]
            table.add(partial(measure, run=engine.score, than=hflm), **what, way="bitsure")
            if shape.examples:
                with mock.patch.dict(patches.ATTENTION_PART, {DEVICE.type: PART[DEVICE.type]}):
                    parts = f"bitsure, attention in parts of {PART[DEVICE.type]}"
                    table.add(partial(measure, run=engine.score, than=hflm), **what, way=parts)
            else:
                table.add(partial(_launches, engine, requests), **what, way="bitsure, kernels")
        if name == next(iter(MODELS)):
            _add_vllm(table, model, name, shapes)
        del model, engine
        free()


def _least_multiply_adds(model: Any, requests: list[Request]) -> float:
    """Return the multiply-adds of every distinct prefix once, and of the head where a token is scored."""
    rows = list(trees(dict(enumerate(requests)), 10**12, 10**9))  # so wide a model has all in one row that share a beginning
    places = [position + 1 for row in rows for position in row.positions]
    scored = {(i, node) for i, row in enumerate(rows) for nodes in row.scored.values() for node in nodes}
    return multiply_adds(model, places, [rows[i].positions[node] + 1 for i, node in scored])


def _hflm(model: Any, batch_size: int) -> Callable[[list[Request]], object]:
    from lm_eval.models.huggingface import HFLM

    from tests.builders.tokenizers import byte_tokenizer  # HFLM wants a tokenizer, which is not used

    harness = HFLM(pretrained=model, tokenizer=byte_tokenizer(), batch_size=batch_size, max_length=2048)
    return lambda requests: harness._loglikelihood_tokens([(("", ""), *each) for each in requests], disable_tqdm=True)


def _speed(
    run: Callable[[list[Request]], object],
    requests: list[Request],
    least: float,
    peak: float,
    than: list[dict[str, float]] | None = None,
    repeats: int = 2,
) -> dict[str, float]:
    """Return the speed of a way to score requests, the best of some runs, and how many times the best of `than` it is."""
    run(requests[: len(requests) // 8])  # the first batch of its size is slower
    with watch_memory(DEVICE) as memory:
        seconds = min(timed(lambda: run(requests))[0] for _ in range(repeats))
    others = [other["seconds"] for other in than or () if other]
    times = {"times HFLM": min(others) / seconds} if others else {}
    return _rates(requests, seconds) | {"share of peak": least / seconds / peak, "peak, GB": memory.rise / 1e9} | times


def _rates(requests: list[Request], seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "tokens/s": sum(len(input_tokens(request)) for request in requests) / seconds}


def _launches(engine: LocalEngine, requests: list[Request]) -> dict[str, float]:
    """Return how many kernels scoring takes, and which share of its time they compute; on a CPU operations of PyTorch."""
    seconds = timed(lambda: engine.score(requests))[0]
    with profile(activities=[ProfilerActivity.CUDA if ON_GPU else ProfilerActivity.CPU]) as profiler:
        timed(lambda: engine.score(requests))
    events = [event for event in profiler.events() if event.device_type.name == DEVICE.type.upper()]
    busy = sum(event.time_range.elapsed_us() if ON_GPU else event.self_cpu_time_total for event in events) / 1e6
    return _rates(requests, seconds) | {"kernels": len(events), "share of time in kernels": busy / seconds}


def _add_vllm(table: Table, model: Any, name: str, shapes: list[Shape]) -> None:
    """Measure vLLM with the same requests, in a process of its own: the log-probabilities of whole prompts."""
    what = {"part": "scoring", "model": name, "way": "vLLM"}
    if importlib.util.find_spec("vllm") is None:
        table.note(**what, note="not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        model.save_pretrained(path)
        results: dict[str, dict[str, float]] = {}

        def measure(shape: Shape) -> dict[str, float]:
            if not results:  # it starts once
                results.update(alone.run("benchmarks.gpu", "vLLM", path, Path(folder) / "out", table.left))
            return results[shape.name]

        for shape in shapes:
            table.add(partial(measure, shape), **what, shape=shape.name)


def measure_attention(table: Table) -> None:
    """Measure ways to compute the attention of a block beside its linear layers."""
    for rows in attention.ROWS if ON_GPU else attention.ROWS[-1:]:
        many = replace(rows, rows=16 * rows.rows) if ON_GPU else rows
        what = {"part": "attention of a block", "model": "1.3B", "shape": f"{rows.name}: {many.rows} × {rows.tokens} tokens"}
        for way in ("masked", "in parts", "nested", "linear layers"):
            table.add(partial(attention.measure, many, DEVICE, getattr(torch, DTYPE), way), **what, way=way)


def score_with_vllm(path: Path) -> dict[str, dict[str, float]]:
    """Return vLLM's speed with each shape's requests."""
    from vllm import LLM, SamplingParams

    server = LLM(str(path), dtype=DTYPE, skip_tokenizer_init=True, max_model_len=2048, gpu_memory_utilization=0.5)
    settings = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    results = {}
    for shape in (shape for shape in SHAPES if shape.name in NAMES):
        requests = requests_of(shape, path.name, server.llm_engine.model_config.get_vocab_size())
        prompts = [{"prompt_token_ids": context + continuation} for context, continuation in requests]
        server.generate(prompts[:64], settings, use_tqdm=False)
        seconds = timed(lambda prompts=prompts: server.generate(prompts, settings, use_tqdm=False))[0]
        results[shape.name] = _rates(requests, seconds)
    return results


def work_alone(way: str, path: Path, folder: Path) -> Any:
    """Score with vLLM, or quantize in a way, in this process."""
    return score_with_vllm(path) if way == "vLLM" else quantize(way, path, folder)


def measure_fidelity(table: Table) -> None:
    """Measure KL over the whole vocabulary of two models beside plain passes of both."""
    name = "1.3B" if ON_GPU else "tiny"
    full, quantized = build_model(name), build_model(name)
    windows = fidelity.random_windows(64 if ON_GPU else 2, full.config.vocab_size)
    tokens = sum(len(window.scored) for window in windows)
    device = next(full.parameters()).device
    with tempfile.TemporaryDirectory() as folder:
        ways = fidelity.ways(full, quantized, windows, Path(folder))
        next(iter(ways.values()))()  # the first pass is slower
        for way, run in ways.items():

            def measure(run: Callable[[], None] = run) -> dict[str, float]:
                with watch_memory(device) as memory:
                    seconds = timed(run)[0]
                return {"seconds": seconds, "tokens/s": tokens / seconds, "peak, GB": memory.rise / 1e9}

            table.add(measure, part="fidelity", model=name, shape=f"{len(windows)} windows of {fidelity.WINDOW}", way=way)


def main() -> None:
    """Measure all parts, the models with an aim first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--miniature", action="store_true", help="tiny models on the CPU: exercises the code, writes nothing")
    given = alone.parse(parser, work_alone)
    if given is None:
        return
    if given.miniature == ON_GPU:
        sys.exit(
            "--miniature is for machines without a GPU, and here is one: leave it out."
            if ON_GPU
            else "No GPU here, so that benchmarks/gpu.md is not written: --miniature runs the code on the CPU."
        )
    logging.disable(logging.WARNING)
    table = Table(write=ON_GPU)
    device = torch.cuda.get_device_name() if ON_GPU else "no GPU"
    table.about = {"device": device, "torch": torch.__version__, "command": "`python -m benchmarks.gpu`"}
    for part, until in ((score_models, 210), (measure_attention, 230), (quantize_models, 400), (measure_fidelity, 440)):
        table.begin(until)
        part(table)
    table.about["seconds in all"] = f"{time.monotonic() - table.started:.0f}"
    table.write_files()
    print(table.markdown() if ON_GPU else "Nothing was written: these are not a GPU's numbers.")


if __name__ == "__main__":
    main()
