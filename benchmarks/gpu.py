"""What a GPU does: `make bench-gpu` writes benchmarks/gpu.md and gpu.json, in less than 8 minutes and without a download.

Models are made on the spot, with random weights. Scoring is measured beside the harness's HFLM at its best batch size, and
beside vLLM where it is installed; GPTQ beside gptqmodel, each in a process of its own, on a few blocks of the shape; KL over
the whole vocabulary beside plain passes. The share of the peak is the least multiply-adds that give the numbers, over the
seconds, over the rate of a large matrix product in the same run and type.

Without a GPU `--miniature` runs the same code on tiny models and writes nothing: a CPU's numbers say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import alone, fidelity
from benchmarks.scoring import SHAPES, Shape, draw, multiply_adds, timed
from bitsure.base.files import write_text
from bitsure.base.resources import watch_memory
from bitsure.config.paths import PROJECT
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import trees
from bitsure.scoring.requests import Request, input_tokens

HERE = Path(__file__).parent
SECONDS = 400  # after which nothing new is begun
ON_GPU = torch.cuda.is_available()
DTYPE = "bfloat16" if ON_GPU else "float32"
NAMES = ("HellaSwag", "ARC", "ARC, 5 shared examples")
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "125m": ("opt", {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_hidden_layers": 12}),
    "1.3B": ("llama", {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16}),
    "7B": ("llama", {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}),
}
QUESTIONS = {"125m": 1600, "1.3B": 800, "7B": 200}
BATCH_SIZES = (16, 64, 256)
BLOCKS = {"1.3B": 4, "7B": 2}  # that GPTQ quantizes
WINDOWS, SEQLEN = 128, 2048  # of its calibration text
if not ON_GPU:
    MODELS = {
        "tiny": ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2})
    }
    QUESTIONS, BATCH_SIZES, BLOCKS, WINDOWS, SEQLEN = {"tiny": 4}, (4,), {"tiny": 2}, 2, 64


@dataclass
class Table:
    """What was measured so far; the files are written again after every row."""

    write: bool
    rows: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    about: dict[str, str] = field(default_factory=dict)

    def add(self, measure: Callable[[], dict[str, float]], **what: str) -> dict[str, float]:
        """Measure a row and return its numbers; none if the time is over or it fails, and the row says so."""
        if time.monotonic() - self.started > SECONDS:
            numbers, note = {}, "not taken: the time was over"
        else:
            try:
                numbers, note = measure(), ""
            except (
                RuntimeError,
                ValueError,
                OSError,
                ImportError,
                subprocess.SubprocessError,
            ) as error:  # as of a library that does not run here: others go on
                message = (getattr(error, "stderr", None) or f"{type(error).__name__}: {error}").strip().splitlines()
                numbers, note = {}, f"failed: {message[-1][:120]}"
        self.rows.append(what | {name: f"{value:.4g}" for name, value in numbers.items()} | ({"note": note} if note else {}))
        print(self.rows[-1], flush=True)
        if self.write:
            write_text(HERE / "gpu.json", json.dumps(asdict(self), indent=1) + "\n")
            write_text(HERE / "gpu.md", self.markdown())
        free()
        return numbers

    def markdown(self) -> str:
        """Return the page."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns, ["---"] * len(columns), *([row.get(name, "") for name in columns] for row in self.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        text = (
            f"# On a GPU\n\nMade by `make bench-gpu`: {about}. Models have random weights of the shapes; {DTYPE}.\n\n{table}\n"
        )
        return f"{text}\nTokens are those of all inputs, each counted whole; `whole model` is all blocks at the rate of some.\n"


def free() -> None:
    """Give the memory of what is not used any more back to the GPU, also to other processes."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def build_model(name: str, **changes: int) -> Any:
    """Return a model of a shape on the device, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, shape = MODELS[name]
    torch.manual_seed(0)
    with torch.device("cuda" if ON_GPU else "cpu"):
        config = AutoConfig.for_model(family, **shape | changes)
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPE)).eval()


def matrix_peak() -> float:
    """Return multiply-adds a second of the product of two large square matrices; the best of ten."""
    n = 8192 if ON_GPU else 512
    a = torch.randn(n, n, dtype=getattr(torch, DTYPE), device="cuda" if ON_GPU else "cpu")
    return max(n**3 / timed(lambda: a @ a)[0] for _ in range(10))


def requests_of(shape: Shape, model: str, vocabulary: int) -> list[Request]:
    """Return a shape's requests: few of the long ones, whose examples make them as much work as the others."""
    return draw(shape, QUESTIONS[model] // (4 if shape.examples else 1), vocabulary)


def score_models(table: Table) -> None:
    """Measure scoring: HFLM at each batch size, the local engine, vLLM."""
    shapes = [shape for shape in SHAPES if shape.name in NAMES]
    for name in MODELS:
        model = build_model(name)
        peak = matrix_peak()
        for shape in shapes:
            requests = requests_of(shape, name, model.config.vocab_size)
            least = _least_multiply_adds(model, requests)
            what = {"part": "scoring", "model": name, "shape": shape.name}
            measure = partial(_speed, requests=requests, least=least, peak=peak)
            hflm = [
                table.add(partial(measure, run=_hflm(model, size)), **what, way=f"HFLM, batch {size}") for size in BATCH_SIZES
            ]
            engine = LocalEngine(model, 2048)
            engine.score(requests[:8])  # checks and probes, once a run
            ours = table.add(partial(measure, run=engine.score, than=hflm), **what, way="bitsure")
            if importlib.util.find_spec("vllm"):
                table.add(partial(_vllm, model, measure, ours), **what, way="vLLM")
            else:
                table.rows.append(what | {"way": "vLLM", "note": "not installed"})
        del model, engine


def _least_multiply_adds(model: Any, requests: list[Request]) -> float:
    """Return the multiply-adds of every distinct prefix once, and of the head where a token is scored."""
    rows = trees(dict(enumerate(requests)), model.config.hidden_size, 10**9)
    places = [position + 1 for row in rows for position in row.positions]
    scored = {(i, node) for i, row in enumerate(rows) for nodes in row.scored.values() for node in nodes}
    return multiply_adds(model, places, [rows[i].positions[node] + 1 for i, node in scored])


def _hflm(model: Any, batch_size: int) -> Callable[[list[Request]], object]:
    from lm_eval.models.huggingface import HFLM

    from tests.builders.tokenizers import byte_tokenizer  # HFLM wants a tokenizer, which is not used

    harness = HFLM(pretrained=model, tokenizer=byte_tokenizer(), batch_size=batch_size, max_length=2048)
    return lambda requests: harness._loglikelihood_tokens([(("", ""), *one) for one in requests], disable_tqdm=True)


def _speed(
    run: Callable[[list[Request]], object], requests: list[Request], least: float, peak: float, than: Any = ()
) -> dict[str, float]:
    """Return the speed of a way to score requests, the better of two runs; and how many times the best of `than` it is."""
    device = torch.device("cuda" if ON_GPU else "cpu")
    with watch_memory(device) as memory:
        seconds = min(timed(lambda: run(requests))[0] for _ in range(2))
    tokens = sum(len(input_tokens(request)) for request in requests)
    others = [other["seconds"] for other in than if other]
    return {
        "seconds": seconds,
        "tokens/s": tokens / seconds,
        "share of peak": least / seconds / peak,
        "peak, GB": memory.rise / 1e9,
        **({"times HFLM": min(others) / seconds} if others else {}),
    }


def _vllm(model: Any, measure: Callable[..., dict[str, float]], ours: dict[str, float]) -> dict[str, float]:
    """Return vLLM's speed with the same requests: the log-probabilities of whole prompts, prefixes cached."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        server = LLM(
            folder, dtype=DTYPE, skip_tokenizer_init=True, max_model_len=2048, gpu_memory_utilization=0.4,
            enable_prefix_caching=True,
        )  # fmt: skip
        settings = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        numbers = measure(
            run=lambda requests: server.generate([{"prompt_token_ids": a + b} for a, b in requests], settings, use_tqdm=False)
        )
    return numbers | ({"bitsure, times vLLM": numbers["seconds"] / ours["seconds"]} if ours else {})


def quantize_models(table: Table) -> None:
    """Measure GPTQ, our own and gptqmodel's, each in a process of its own."""
    for name, blocks in BLOCKS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            _save(name, blocks, path)
            layers = MODELS[name][1]["num_hidden_layers"]
            ways: list[dict[str, float]] = []
            for way in ("gptqmodel", "native"):
                what = {
                    "part": "GPTQ, 4 bits",
                    "model": name,
                    "shape": f"{blocks} blocks, {WINDOWS} × {SEQLEN} tokens",
                    "way": way,
                }
                run = partial(_quantized, way, path, Path(folder) / way, layers / blocks, ways)
                ways.append(table.add(run, **what))


def _save(name: str, blocks: int, path: Path) -> None:
    from transformers import AutoTokenizer

    build_model(name, num_hidden_layers=blocks).save_pretrained(path)
    free()
    AutoTokenizer.from_pretrained(PROJECT / "pocket" / "models" / "pocket-1m").save_pretrained(path)


def _quantized(way: str, path: Path, folder: Path, times: float, others: list[dict[str, float]]) -> dict[str, float]:
    numbers: dict[str, float] = alone.run("benchmarks.gpu", way, path, folder)
    theirs = next((other["seconds"] for other in others if other), None)
    return numbers | {"whole model, s": numbers["seconds"] * times} | (
        {"times gptqmodel": theirs / numbers["seconds"]} if theirs else {}
    )  # fmt: skip


def quantize_alone(way: str, path: Path, folder: Path) -> dict[str, float]:
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


def measure_fidelity(table: Table) -> None:
    """Measure KL over the whole vocabulary of two models beside plain passes of both."""
    name = "1.3B" if ON_GPU else "tiny"
    full, quantized = build_model(name), build_model(name)
    windows = fidelity.random_windows(64 if ON_GPU else 2, full.config.vocab_size)
    tokens = sum(len(window.scored) for window in windows)
    with tempfile.TemporaryDirectory() as folder:
        for way, run in fidelity.ways(full, quantized, windows, Path(folder)).items():

            def measure(run: Callable[[], None] = run) -> dict[str, float]:
                with watch_memory(next(full.parameters()).device) as memory:
                    seconds = timed(run)[0]
                return {"seconds": seconds, "tokens/s": tokens / seconds, "peak, GB": memory.rise / 1e9}

            table.add(measure, part="fidelity", model=name, shape=f"{len(windows)} windows of {fidelity.WINDOW}", way=way)


def aims(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield each aim and whether it is reached, as far as its rows were taken."""
    for row in rows:
        if row.get("model") == "1.3B" and row["way"] == "bitsure" and "share of peak" in row:
            yield f"{row['shape']}, 1.3B: {row['share of peak']} of the matrix peak; the aim is 0.5"
        if row["way"] == "bitsure" and row["shape"] != NAMES[2] and "times HFLM" in row:
            yield f"{row['shape']}, {row['model']}: {row['times HFLM']} times HFLM at its best batch; the aim is 2"
        if row.get("model") == "7B" and row["way"] == "native" and "seconds" in row:
            times = row.get("times gptqmodel", "unknown")
            yield f"GPTQ of 7B: {row['whole model, s']} s, {times} times gptqmodel; the aims are 600 s and 1.5"


def main() -> None:
    """Measure all parts, the ones with an aim first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--miniature", action="store_true", help="tiny models on the CPU: exercises the code, writes nothing")
    given = alone.parse(parser, quantize_alone)
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
    for part in (score_models, quantize_models, measure_fidelity):
        part(table)
    text = table.markdown() + "".join(f"\n- {aim}" for aim in (aims(table.rows) if ON_GPU else ())) + "\n"
    print(text)
    if table.write:
        write_text(HERE / "gpu.md", text)
    else:
        print("Nothing was written: these are not a GPU's numbers.")


if __name__ == "__main__":
    main()
