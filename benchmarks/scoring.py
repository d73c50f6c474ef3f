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
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.markdown_table import Row, markdown_of
from benchmarks.multiply_adds import least_multiply_adds, multiply_adds_of_hflm, multiply_adds_per_second, timed
from benchmarks.random_questions import SHAPES, Shape, build_model, draw
from benchmarks.vllm_engine import PYTHON, VllmProcess, vllm_processes
from bitsure.base.files import write_text
from bitsure.base.resources import watch_memory
from bitsure.scoring.journal import Journal
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.requests import Request, Scored

HERE = Path(__file__).parent
BATCH_SIZES = (1, 8, 32)
REPEATS = 3  # of ours and of HFLM's best; medians are quoted


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
        with vllm_processes(name, model, arguments.device) as vllms:
            for shape in (shape for shape in SHAPES if shape.name in arguments.shapes):
                rows.append(compare(model, shape, max(1, round(times * shape.questions)), rate, vllms))
                print(name, rows[-1], flush=True)
        requests = draw(SHAPES[0], max(1, round(times * SHAPES[0].questions)), model.config.vocab_size)
        beside_hflm, side_by_side = (list(side) for side in zip(*rows, strict=True))
        text += [
            f"## {name}",
            f"A matrix product runs at {rate / 1e9:.1f} billion multiply-adds a second.",
            markdown_of(beside_hflm),
        ]
        text += [fixed_costs(model, requests, float(beside_hflm[0]["ours, s"])), markdown_of(side_by_side)]
    report = "\n\n".join(text) + "\n"
    print(report)
    write_text(arguments.out, report)


if __name__ == "__main__":
    main()
