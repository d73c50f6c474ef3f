"""Scoring from disk beside scoring in memory: `make bench-from-disk` writes benchmarks/from_disk.md.

A random OPT of 12 blocks scores the same questions in the same batches, its blocks in memory or on disk, each in a
process of its own on one thread. The files are in the system's cache, so that reading them is copying. Each pair of
processes writes the page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import alone
from benchmarks.random_questions import SHAPES, directory_of, draw
from bitsure.base.files import write_text
from bitsure.base.resources import measured
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local.budget import MOST_TOKENS
from bitsure.scoring.local.local_engine import LocalEngine

PAGE = Path(__file__).parent / "from_disk.md"
SHAPE = {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
VOCABULARY = 1024
QUESTIONS = {"HellaSwag": 36, "ARC": 120}  # of these shapes
PLACES = ("memory", "disk")
LIMITS = Limits(MOST_TOKENS["cpu"], MOST_TOKENS["cpu"])
run = partial(alone.run, "benchmarks.from_disk")


def score(place: str, path: Path, folder: Path) -> dict[str, Any]:
    """Score each shape; return its processor seconds, wall seconds, and what it gave, and the process's peak of memory."""
    from bitsure.models.load import empty_model, load_model
    from bitsure.models.offloading import blocks_on_disk

    torch.set_num_threads(1)
    places = blocks_on_disk(empty_model(path), "model.decoder.layers") if place == "disk" else None
    with measured() as use:
        model, _ = load_model(path, "float32", "cpu", places=places)
        engine = LocalEngine(model, model.config.max_position_embeddings)
        engine.limits = lambda: LIMITS  # type: ignore[method-assign]
        shapes = {shape.name: draw(shape, QUESTIONS[shape.name], model.config.vocab_size) for shape in SHAPES[:2]}
        engine.score(shapes["ARC"][:8], journal=Journal())  # What is tried once is not of one of the two.
        times = {}
        for name, requests in shapes.items():
            processor, wall = time.process_time(), time.monotonic()
            logprobs = [scored.logprob for scored in engine.score(requests, journal=Journal())]
            times[name] = [time.process_time() - processor, time.monotonic() - wall, logprobs]
    return {"times": times, "peak": use.peak_memory_bytes}


def page(pairs: list[dict[str, Any]]) -> str:
    """Return the page, of results by place."""
    lines = [
        f"Made by `make bench-from-disk`: medians of {len(pairs)} pair(s) of processes, one thread, float32, a random OPT of "
        f"{SHAPE['num_hidden_layers']} blocks of width {SHAPE['hidden_size']} in memory or on disk, the same "
        f"questions in batches of up to {LIMITS.shared:,} tokens. Peaks are of a process that loads and scores "
        "it, Python and the libraries counted.",
        "",
        "| questions | in memory, processor s | from disk ÷ that | from disk ÷ in memory, wall | largest difference, nats |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, questions in QUESTIONS.items():
        memory, disk = ([pair[place]["times"][name] for pair in pairs] for place in PLACES)
        ratios = [median(slow[i] / fast[i] for slow, fast in zip(disk, memory, strict=True)) for i in (0, 1)]
        off = max(abs(a - b) for a, b in zip(memory[0][2], disk[0][2], strict=True))
        lines.append(
            f"| {questions} of {name} | {median(m[0] for m in memory):.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {off:.0e} |"
        )
    peaks = {place: median(pair[place]["peak"] for pair in pairs) / 1e6 for place in PLACES}
    lines += ["", f"Peak of memory: {peaks['memory']:,.0f} MB in memory, {peaks['disk']:,.0f} MB from disk."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    given = alone.parse(parser, score)
    if given is None:
        return
    pairs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(path)
        for number in range(given.pairs):
            order = PLACES if number % 2 else PLACES[::-1]
            pairs.append(
                {place: alone.run("benchmarks.from_disk", place, path, Path(folder) / f"{place}{number}") for place in order}
            )
            write_text(PAGE, page(pairs))
    print(PAGE.read_text(encoding="utf-8"))


def write_model(path: Path) -> None:
    """Write the random model, with the embedded family's tokenizer, which is not used."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig(**SHAPE, vocab_size=VOCABULARY)).save_pretrained(path)
    AutoTokenizer.from_pretrained(directory_of("pocket-1m")).save_pretrained(path)


if __name__ == "__main__":
    main()
