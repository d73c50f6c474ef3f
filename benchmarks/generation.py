"""Writing answers, ours against the harness's HFLM: `make bench-generation` writes benchmarks/generation.md.

The same prompts go through both `generate_until`, on the same threads, in one process, and the answers have to be the same
texts. HFLM runs with one prompt at a time, as it does by default, and at its best batch size.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from benchmarks.markdown_table import markdown_of
from benchmarks.multiply_adds import timed
from benchmarks.random_questions import build_model
from bitsure.base.files import write_text
from bitsure.config.paths import PROJECT
from bitsure.scoring.generation.text_generator import TextGenerator
from bitsure.scoring.hooked_lm import HookedLM
from bitsure.scoring.local.local_engine import LocalEngine

PAGE = Path(__file__).parent / "generation.md"
BATCH_SIZES = (1, 8, 32)
REPEATS = 3  # of ours and of HFLM's best; medians are quoted
TASKS = PROJECT / "pocket" / "tasks"


@dataclass(frozen=True)
class Answers:
    """Questions of one kind."""

    name: str
    questions: int
    examples: int  # before every question, the same ones
    until: tuple[str, ...]
    max_gen_toks: int


SHAPES = (
    Answers("one sentence", 256, 0, (".",), 48),
    Answers("one sentence, 8 examples", 256, 8, (".",), 48),
    Answers("64 tokens", 64, 0, (), 64),
    Answers("64 tokens, 8 examples", 64, 8, (), 64),
)


def prompts(shape: Answers, share: float) -> list[str]:
    """Questions of the pocket world, after examples of it."""
    rows = [json.loads(line) for line in (TASKS / "stories.jsonl").read_text(encoding="utf-8").splitlines()]
    examples = (
        "".join(f"{row['context']} {row['choices'][row['label']]}.\n" for row in rows[-shape.examples :])
        if shape.examples
        else ""
    )
    return [examples[-1400:] + row["context"] for row in rows[: max(8, int(shape.questions * share))]]


def written(lm: HFLM, asked: Sequence[str], shape: Answers) -> tuple[float, list[str]]:
    """Seconds, and the answers."""
    kwargs = {"until": list(shape.until), "max_gen_toks": shape.max_gen_toks}
    requests = [Instance("generate_until", {}, (prompt, kwargs), 0, ("", i, 1)) for i, prompt in enumerate(asked)]
    return timed(lambda: lm.generate_until(requests, disable_tqdm=True))


def compare(model: torch.nn.Module, tokenizer, shape: Answers, share: float) -> dict:
    """One row of the table."""
    asked = prompts(shape, share)
    ours = HookedLM(model, tokenizer, partial(LocalEngine, model), lambda n: None)
    ours.generator = TextGenerator(model, ours.tokenizer)
    written(ours, asked[:2], shape)

    def mine() -> tuple[float, list[str]]:
        ours.written.clear()
        return written(ours, asked, shape)

    def theirs(batch_size: int) -> tuple[float, list[str]]:
        return written(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size), asked, shape)

    tried = {batch_size: theirs(batch_size) for batch_size in BATCH_SIZES}
    best = min(tried, key=lambda batch_size: tried[batch_size][0])
    runs = [(mine(), theirs(best)) for _ in range(REPEATS)]  # in turns: the machine's load falls on both alike
    seconds, other = (float(np.median([run[side][0] for run in runs])) for side in (0, 1))
    same = sum(a == b for a, b in zip(runs[0][0][1], tried[1][1], strict=True))
    return {
        "shape": shape.name,
        "questions": len(asked),
        "HFLM one by one, s": f"{tried[1][0]:.2f}",
        "HFLM at its best, s": f"{other:.2f} (batch {best})",
        "ours, s": f"{seconds:.2f}",
        "times faster than one by one": f"{tried[1][0] / seconds:.1f}",
        "than its best": f"{np.median([run[1][0] / run[0][0] for run in runs]):.2f}",
        "same answers": f"{same} of {len(asked)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["pocket-1m", "pocket-4m"])
    parser.add_argument("--share", type=float, default=1.0, help="of the questions")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    tokenizer = AutoTokenizer.from_pretrained(PROJECT / "pocket" / "models" / "pocket-1m")
    parts = [
        f"Made by `make bench-generation`: torch {torch.__version__}, float32, cpu, {torch.get_num_threads()} threads. "
        f"HFLM one by one, and at its best batch size of {BATCH_SIZES}; medians of {REPEATS}."
    ]
    for name in given.models:
        model = build_model(name, "cpu", torch.float32)
        parts += [f"## {name}", markdown_of([compare(model, tokenizer, shape, given.share) for shape in SHAPES])]
        write_text(PAGE, "\n\n".join(parts) + "\n")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
