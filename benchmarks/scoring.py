"""Our scoring against the harness's HFLM: `make bench-scoring` prints the tables and writes benchmarks/scoring.md.

The same random requests go through both, on the same threads, in one process. HFLM runs at each of its batch sizes, the
best one counts. Where vLLM's environment is there (`make setup-vllm`) it scores them too, in turns with both, in float32 and in
bfloat16. The floor is the least multiply-adds that give the numbers (every distinct prefix once, the head where a token is
scored, of the last block no more than that needs) at the rate of a matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.vllm_engine import PYTHON, VllmProcess
from bitsure.base.files import write_text
from bitsure.base.resources import watch_memory
from bitsure.scoring.journal import Journal
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.requests import Request, Scored, input_tokens

HERE = Path(__file__).parent
BATCH_SIZES = (1, 8, 32)
VLLM_TYPES = ("float32", "bfloat16")
REPEATS = 3  # of ours and of HFLM's best; medians are quoted


Row = dict[str, object]
"""Of a table: column → what stands there."""


@dataclass(frozen=True)
class Shape:
    """Questions of one kind; ranges are inclusive, in tokens."""

    name: str
    questions: int  # that take HFLM a quarter of a minute with opt-125m
    context: tuple[int, int]
    choices: int
    continuation: tuple[int, int]
    examples: int = 0  # tokens of few-shot examples before every context
    same_examples: bool = False


SHAPES = (
    Shape("HellaSwag", 36, (40, 110), 4, (12, 40)),
    Shape("ARC", 120, (25, 25), 4, (5, 5)),
    Shape("PIQA", 180, (18, 18), 2, (20, 20)),
    Shape("BoolQ", 120, (130, 130), 2, (1, 1)),
    Shape("ARC, 5 own examples", 12, (25, 25), 4, (5, 5), examples=250),
    Shape("ARC, 5 shared examples", 12, (25, 25), 4, (5, 5), examples=250, same_examples=True),
)
OPT = {
    "opt-125m": {
        "hidden_size": 768,
        "word_embed_proj_dim": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "opt-1.3b": {
        "hidden_size": 2048,
        "word_embed_proj_dim": 2048,
        "ffn_dim": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
    },
}
LLAMA = {
    "llama-1.3b": {
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 32000,
    }
}


def build_model(name: str, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """A random model of a known shape, or a pocket model; weights do not matter for time."""
    from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

    torch.manual_seed(0)
    if name in OPT:
        model = AutoModelForCausalLM.from_config(OPTConfig(**OPT[name]))
    elif name in LLAMA:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA[name]))
    else:
        model = AutoModelForCausalLM.from_pretrained(directory_of(name))
    return model.to(device, dtype).eval()


def directory_of(name: str) -> Path:
    """Where a pocket model is, or a real one (`make real-models`)."""
    embedded = HERE.parent / "pocket" / "models" / name
    return embedded if embedded.is_dir() else HERE.parent / "real_models" / name


def draw(shape: Shape, n: int, vocabulary: int, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return rng.integers(5, vocabulary, rng.integers(low, high + 1)).tolist()

    shared = tokens(shape.examples, shape.examples)
    requests = []
    for _ in range(n):
        context = (shared if shape.same_examples else tokens(shape.examples, shape.examples)) + tokens(*shape.context)
        requests += [(context, tokens(*shape.continuation)) for _ in range(shape.choices)]
    return requests


def least_multiply_adds(model: torch.nn.Module, requests: list[Request]) -> float:
    """Of every distinct prefix once through the blocks, attention included, and of the rest where something is scored."""
    prefixes = {tuple(input_tokens(r)[:n]) for r in requests for n in range(1, len(input_tokens(r)) + 1)}
    scored = {tuple((r[0] + r[1])[: len(r[0]) + i]) for r in requests for i in range(len(r[1]))}
    return multiply_adds(model, [len(prefix) for prefix in prefixes], [len(ends) for ends in scored])


def multiply_adds_of_hflm(model: torch.nn.Module, requests: list[Request]) -> float:
    """Of every distinct input whole, with the head at each of its tokens; padding left out."""
    lengths = [len(ids) for ids in {tuple(input_tokens(r)) for r in requests}]
    places = [place for n in lengths for place in range(1, n + 1)]
    return multiply_adds(model, places, places)


def multiply_adds(model: torch.nn.Module, places: list[int], scored: list[int]) -> float:
    """Of tokens at these places, counted from 1, of which some are scored: the last block makes keys and values of all, and
    the rest, as the head does, of those alone.
    """
    config = model.config
    blocks = {name: p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name}
    last = f"layers.{config.num_hidden_layers - 1}."
    at_the_end = sum(n for name, n in blocks.items() if last in name and ".k_proj." not in name and ".v_proj." not in name)
    attention = 2 * config.hidden_size * ((config.num_hidden_layers - 1) * sum(places) + sum(scored))
    head = config.hidden_size * config.vocab_size
    return len(places) * (sum(blocks.values()) - at_the_end) + attention + len(scored) * (at_the_end + head)


def multiply_adds_per_second(model: torch.nn.Module) -> float:
    """Of the largest matrix product in the model's blocks, with 1,024 tokens; the best of ten."""
    weight = max((p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n), key=torch.Tensor.numel)
    tokens = torch.randn(1024, weight.shape[1], dtype=weight.dtype, device=weight.device)
    with torch.inference_mode():
        return max(1024 * weight.numel() / timed(lambda: tokens @ weight.T)[0] for _ in range(10))


def timed(work) -> tuple[float, object]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def measured(lm, requests: list[Request]) -> tuple[float, float, list[float]]:
    """Seconds, peak bytes above what was held before, log-likelihoods."""
    gc.collect()
    if platform.system() == "Linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back, so that the peak is this run's
    named = [((str(i), ""), *request) for i, request in enumerate(requests)]
    with watch_memory(lm.device) as memory:
        seconds, results = timed(lambda: lm._loglikelihood_tokens(named, disable_tqdm=True))
    return seconds, memory.rise, [logprob for logprob, _ in results]


def compare(model: torch.nn.Module, shape: Shape, n: int, rate: float, vllms: dict[str, VllmProcess]) -> tuple[Row, Row]:
    """A shape's rows: ours beside HFLM and the floor, and all engines side by side."""
    from lm_eval.models.huggingface import HFLM

    from bitsure.scoring.hooked_lm import HookedLM
    from tests.builders.tokenizers import byte_tokenizer  # HFLM wants a tokenizer, which is not used

    requests, tokenizer = draw(shape, n, model.config.vocab_size), byte_tokenizer()

    lm = HookedLM(model, tokenizer, partial(LocalEngine, model), lambda n: None)
    measured(lm, requests)  # the first call checks and probes, once a run: `fixed_costs` has that

    def hflm(batch_size: int):
        return measured(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size), requests)

    tried = {batch_size: hflm(batch_size) for batch_size in BATCH_SIZES}
    best = min(tried, key=lambda batch_size: tried[batch_size][0])
    engines = {"ours": partial(measured, lm, requests), "HFLM": partial(hflm, best)}
    engines |= {name: partial(vllm.score, requests) for name, vllm in vllms.items()}
    # in turns: the machine's load falls on all alike
    turns = [{name: score() for name, score in engines.items()} for _ in range(REPEATS)]
    seconds = {name: float(np.median([turn[name][0] for turn in turns])) for name in engines}
    apart = {name: largest_difference(turns[0]["ours"][-1], turns[0][name][-1]) for name in engines if name != "ours"}
    peaks = {name: max(turn[name][1] for turn in turns) for name in ("ours", "HFLM")}
    least = least_multiply_adds(model, requests)
    beside_hflm = {
        "shape": shape.name,
        "questions": n,
        "HFLM, s": f"{seconds['HFLM']:.2f} (batch {best})",
        "ours, s": f"{seconds['ours']:.2f}",
        "times faster": f"{np.median([turn['HFLM'][0] / turn['ours'][0] for turn in turns]):.2f}",
        "by arithmetic": f"{multiply_adds_of_hflm(model, requests) / least:.2f}",
        "floor, s": f"{least / rate:.2f}",
        "ours / floor": f"{seconds['ours'] / (least / rate):.2f}",
        "peak HFLM, MB": f"{peaks['HFLM'] / 1e6:.0f}",
        "peak ours, MB": f"{peaks['ours'] / 1e6:.0f}",
        "largest difference, nats": f"{apart['HFLM']:.1e}",
    }
    side_by_side = {"questions a second": shape.name} | {name: f"{n / taken:.1f}" for name, taken in seconds.items()}
    side_by_side |= {f"{name} − ours, nats": f"{difference:.1e}" for name, difference in apart.items()}
    return beside_hflm, side_by_side


def largest_difference(ours: list[float], others: list[float]) -> float:
    """Of the log-likelihoods of the same requests, nats."""
    return max(abs(a - b) for a, b in zip(ours, others, strict=True))


@contextmanager
def vllms_of(name: str, model: torch.nn.Module, device: str) -> Iterator[dict[str, VllmProcess]]:
    """The model as vLLM runs it, in each type; none where its environment is missing, or is not one for this device."""
    if device != "cpu" or not PYTHON.exists():
        yield {}
        return
    from tests.builders.tokenizers import byte_tokenizer

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        directory = directory_of(name)
        if not directory.is_dir():  # a random model
            directory = Path(folder, "model")
            model.save_pretrained(directory)
            byte_tokenizer().save_pretrained(directory)
        processes = {}
        for dtype in VLLM_TYPES:
            processes[f"vLLM {dtype}"] = VllmProcess(directory, dtype, torch.get_num_threads(), Path(folder, f"{dtype}.log"))
            stack.callback(processes[f"vLLM {dtype}"].stop)
        yield processes


def fixed_costs(model: torch.nn.Module, requests: list[Request], seconds: float) -> str:
    """What comes before the first batch and what the journal takes, and their share of a run of 60 s at this speed."""
    numbered = dict(enumerate(requests))
    first = float(np.median([timed(lambda: LocalEngine(model, 2048).lay_out(numbered, 2048))[0] for _ in range(3)]))
    scored = [Scored([-1.234567] * len(continuation), False) for _, continuation in requests]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder, "journal"))
        writing = timed(lambda: journal.append(zip(requests, scored, strict=True)))[0]
    return (
        f"Fixed costs on HellaSwag's shape: measuring a batch's memory, the check and laying out {len(requests)} choices "
        f"{first:.2f} s a run, the journal {writing:.3f} s: {(first + writing * 60 / seconds) / 60:.1%} of a run of 60 s."
    )


def markdown(rows: list[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="opt-125m,pocket-1m,pocket-4m")
    parser.add_argument("--times", type=float, default=1, help="as many questions; pocket models get ten times as many again")
    parser.add_argument("--shapes", nargs="*", default=[shape.name for shape in SHAPES])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=HERE / "scoring.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    given = f' ARGS="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else ""
    text = [f"Made by `make bench-scoring{given}`: torch {torch.__version__}, {arguments.dtype}, {arguments.device}, "]
    text[0] += f"{torch.get_num_threads()} threads. HFLM at its best batch size of {BATCH_SIZES}; medians of {REPEATS}. "
    text[0] += "By arithmetic: how many times HFLM's multiply-adds, without its padding, are the least that give the numbers. "
    with_vllm = "vLLM 0.32.0 on as many threads (`make setup-vllm`), without compiled graphs."
    text[0] += with_vllm if PYTHON.is_file() else "vLLM was not measured: its environment was not there (`make setup-vllm`)."
    for name in arguments.models.split(","):
        model = build_model(name, arguments.device, getattr(torch, arguments.dtype))
        times = arguments.times * (10 if name.startswith("pocket") else 1)
        rate = multiply_adds_per_second(model)
        rows = []
        with vllms_of(name, model, arguments.device) as vllms:
            for shape in (shape for shape in SHAPES if shape.name in arguments.shapes):
                rows.append(compare(model, shape, max(1, round(times * shape.questions)), rate, vllms))
                print(name, rows[-1], flush=True)
        requests = draw(SHAPES[0], max(1, round(times * SHAPES[0].questions)), model.config.vocab_size)
        beside_hflm, side_by_side = (list(side) for side in zip(*rows, strict=True))
        text += [
            f"## {name}",
            f"A matrix product runs at {rate / 1e9:.1f} billion multiply-adds a second.",
            markdown(beside_hflm),
        ]
        text += [fixed_costs(model, requests, float(beside_hflm[0]["ours, s"])), markdown(side_by_side)]
    report = "\n\n".join(text) + "\n"
    print(report)
    write_text(arguments.out, report)


if __name__ == "__main__":
    main()
