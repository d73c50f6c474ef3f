"""What a scored batch spends its time on, and what separates it from its floor: `make bench-shares`.

All is processor time of one thread, which other work on the machine changes little. The floor is that of benchmarks/scoring.py.
"Bare" are the matrix products of the blocks alone, of the same shapes and in the same order, on random numbers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.markdown_table import markdown_of
from benchmarks.multiply_adds import least_multiply_adds
from benchmarks.random_questions import SHAPES, build_model, draw
from bitsure.base.files import write_text
from bitsure.scoring.local import forward
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.requests import Request

OUT = Path(__file__).with_suffix(".md")
REPEATS = 5
QUESTIONS = {"ARC": 12, "HellaSwag": 4, "BoolQ": 8}  # a few seconds of SmolLM2-135M


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of a piece of work, s."""
    started = time.process_time()
    work()
    return time.process_time() - started


def part_of(module: torch.nn.Module) -> str | None:
    """What a module of a block is counted as; None for those that only call others."""
    kind = type(module).__name__
    if isinstance(module, torch.nn.Linear):
        return "blocks' matrix products"
    return "norms" if kind.endswith("Norm") else "activation" if kind.endswith(("Activation", "ReLU")) else None


def shares(model: torch.nn.Module, engine: LocalEngine, requests: list[Request]) -> dict[str, float]:
    """The share of each part in the time of a run."""
    spent: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            started = time.process_time()
            result = function(*args, **settings)
            spent[name] += time.process_time() - started
            return result

        return call

    family = sys.modules[type(model).__module__]
    with ExitStack() as stack:
        for module in model.modules():
            if module is not model.get_output_embeddings() and (name := part_of(module)):
                stack.enter_context(patch.object(module, "forward", timed(name, module.forward)))
        places = [(torch.nn.functional, "scaled_dot_product_attention", "attention"), (forward.head, "score", "head")]
        places += [(family, "apply_rotary_pos_emb", "rotary positions")] if hasattr(family, "apply_rotary_pos_emb") else []
        for owner, attribute, name in places:
            stack.enter_context(patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        whole = seconds(lambda: [engine.score(requests) for _ in range(REPEATS)])
    return {name: part / whole for name, part in spent.items()}


def products_of(
    model: torch.nn.Module, engine: LocalEngine, requests: list[Request]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random inputs and weights of the shapes of all matrix products of the blocks, in their order."""
    sizes: list[tuple[int, torch.Size]] = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        sizes.append((inputs[0].numel() // inputs[0].shape[-1], module.weight.shape))

    layers = [
        part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not model.get_output_embeddings()
    ]
    handles = [layer.register_forward_hook(note) for layer in layers]
    engine.score(requests)
    for handle in handles:
        handle.remove()
    weights = {shape: torch.randn(shape) for _, shape in sizes}
    inputs = {(n, shape[1]): torch.randn(n, shape[1]) for n, shape in sizes}
    return [(inputs[n, shape[1]], weights[shape]) for n, shape in sizes]


def row(model: torch.nn.Module, shape: str) -> dict[str, str]:
    """One row of the table."""
    [questions] = [each for each in SHAPES if each.name == shape]
    requests, engine = draw(questions, QUESTIONS[shape], model.config.vocab_size), LocalEngine(model, 2048)
    engine.score(requests)  # the first run tries the model
    ours = float(np.median([seconds(lambda: engine.score(requests)) for _ in range(REPEATS)]))
    products = products_of(model, engine, requests)
    with torch.inference_mode():
        bare = float(np.median([seconds(lambda: [x @ w.T for x, w in products]) for _ in range(REPEATS)]))
        widest = max((w for _, w in products), key=torch.Tensor.numel)
        tokens = torch.randn(1024, widest.shape[1])
        rate = max(1024 * widest.numel() / seconds(lambda: tokens @ widest.T) for _ in range(10))
    floor = least_multiply_adds(model, requests) / rate
    parts = shares(model, engine, requests)
    parts["the rest"] = 1 - sum(parts.values())
    listed = {name: f"{share:.1%}" for name, share in sorted(parts.items(), key=lambda part: -part[1])}
    times = {"ours, s": f"{ours:.2f}", "ours / floor": f"{ours / floor:.2f}", "bare / ours": f"{bare / ours:.1%}"}
    return {"shape": shape, **times, **listed}


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--shapes", nargs="*", default=list(QUESTIONS))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(arguments.model, "cpu", torch.float32)
    rows = []
    for shape in arguments.shapes:
        rows.append(row(model, shape))
        print(rows[-1], flush=True)
    columns = list(rows[0])
    table = markdown_of([{column: each.get(column, "") for column in columns} for each in rows])
    head = f"Made by `make bench-shares`: {arguments.model}, torch {torch.__version__}, float32, processor time of one thread."
    write_text(arguments.out, f"{head}\n\n{table}\n")


if __name__ == "__main__":
    main()
