"""What rounding at run time and MX formats cost: `make bench-formats` prints the tables and writes benchmarks/formats.md.

A random OPT of 125m's shape. Scoring: the same questions by the same engine, with and without rounding. Quantizing: chains
against GPTQ to integers, from the same calibration tokens, each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import alone
from benchmarks.quantize import GPTQ, SEQLEN, SHAPE, WINDOWS, tokens, write_model
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.quantizers import Chain
from bitsure.quantize.libraries.gptq import Gptq

HERE = Path(__file__).parent
A8, A4, KV4, AMX = Activations(8), Activations(4), KeysValues(4), Activations(format="mxfp4")
AT_RUN_TIME = {"nothing": (None, None), "a8": (A8, None), "kv4": (None, KV4), "a8-kv4": (A8, KV4), "a4-kv4": (A4, KV4)}
AT_RUN_TIME |= {"a-mxfp4": (AMX, None), "a-fp8_e4m3": (Activations(format="fp8_e4m3"), None)}
SOLVER = {key: GPTQ[key] for key in ("desc_act", "damp_percent")} | {"backend": "native"}
CHAINS: dict[str, Chain] = {
    "gptq4": Gptq(**GPTQ, backend="native"),
    "gptq-mxfp4": Gptq(format="mxfp4", **SOLVER),
    "smooth+gptq-mxfp4-a-mxfp4": Gptq(format="mxfp4", transforms=["smooth"], activations=AMX, **SOLVER),
    "gptq4-a8-kv4": Gptq(**GPTQ, backend="native", activations=A8, kv=KV4),
}
SCORED = "ARC"  # of benchmarks.random_questions


def quantizing(name: str, model_path: Path, folder: Path) -> float:
    """Seconds, in this process, without imports and loading."""
    from bitsure.models.load import load_model
    from bitsure.quantize.native import chain

    out = folder / "out"
    out.mkdir()
    model, _ = load_model(model_path, "float32", device="cpu")
    started = time.perf_counter()
    chain.quantize(model, CHAINS[name], tokens(WINDOWS, 1), folder / "parts", out, lambda *a, **k: None)
    return time.perf_counter() - started


def scoring(path: Path, questions: int, repeats: int) -> dict[str, float]:
    """Median seconds to score the same questions, in turns: the machine's load falls on all alike."""
    from benchmarks.random_questions import SHAPES, draw
    from bitsure.models.load import load_model
    from bitsure.quantize.inference.hooks import attach
    from bitsure.quantize.inference.scheme import InferenceScheme
    from bitsure.scoring.local.local_engine import LocalEngine

    shape = next(shape for shape in SHAPES if shape.name == SCORED)
    asked = draw(shape, questions, 50_000)
    engines = {}
    for name, (activations, kv) in AT_RUN_TIME.items():
        model, _ = load_model(path, "float32", device="cpu")
        rounding = attach(model, InferenceScheme(activations=activations, kv=kv))
        engines[name] = LocalEngine(model, 2048, rounding=rounding)
        engines[name].score(asked)  # checks and probes, once a run
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.score(asked)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer for a quick look")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    given = alone.parse(parser, quantizing)
    if given is None:
        return
    seconds_of: dict[str, list[float]] = {name: [] for name in CHAINS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(path, given.layers)
        scored = scoring(path, given.questions, given.repeats)
        for repeat in range(given.repeats):
            for name in CHAINS:
                seconds_of[name].append(alone.run("benchmarks.formats", name, path, Path(folder) / f"{name}-{repeat}"))
                print(f"{name}: {seconds_of[name][-1]:.1f} s", flush=True)
    quantized = {name: statistics.median(seconds) for name, seconds in seconds_of.items()}
    text = page(scored, quantized, given)
    print(text)
    if given.layers == SHAPE["num_hidden_layers"]:
        (HERE / "formats.md").write_text(text, encoding="utf-8")


def page(scored: dict[str, float], quantized: dict[str, float], given: argparse.Namespace) -> str:
    lines = [
        "# What number formats cost",
        "",
        f"`make bench-formats`: a random OPT of 125m's shape, {given.layers} blocks, float32, "
        f"{torch.get_num_threads()} threads, medians of {given.repeats}.",
        "",
        f"Scoring {given.questions} questions of {SCORED}'s shape, with what is rounded at run time:",
        "",
        *table(scored, "rounded"),
        "",
        f"Quantizing by {WINDOWS} × {SEQLEN} tokens:",
        "",
        *table(quantized, "chain"),
    ]
    return "\n".join(lines) + "\n"


def table(seconds: dict[str, float], what: str) -> list[str]:
    first = next(iter(seconds))
    rows = [f"| {name} | {median:.2f} | {median / seconds[first]:.2f} |" for name, median in seconds.items()]
    return [f"| {what} | seconds | ÷ {first}'s |", "|---|---|---|", *rows]


if __name__ == "__main__":
    main()
