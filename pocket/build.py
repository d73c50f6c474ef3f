"""Make the embedded default again: `python -m pocket.build tasks`, `python -m pocket.build model pocket-1m --seed 0`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import islice
from pathlib import Path

from pocket import questions
from pocket.corpus import corpus_windows, learn_tokenizer
from pocket.phrases import count_weather, documents
from pocket.world import WorldConfig, build_world

HERE = Path(__file__).parent
WORLD = WorldConfig()
TOKENIZER_SEED, CORPUS_SEED, CALIBRATION_SEED = 1, 2, 3
QUESTION_SEED = 2027  # fresh: the world was chosen on questions drawn with seeds 5 and 2026
QUESTIONS = 1000  # of each task
STEPS = 2400
CALIBRATION_CHARACTERS = 1_000_000


def build_tasks(out: Path, seed: int) -> None:
    """Write the questions of the four tasks, drawn with `seed`, as JSONL."""
    world = build_world(WORLD)
    tokenizer = learn_tokenizer(world, TOKENIZER_SEED)
    windows = corpus_windows(world, tokenizer, CORPUS_SEED, windows_needed())
    seen = sum(map(count_weather, tokenizer.batch_decode(windows.tolist())), Counter())
    rows = {
        "recall": questions.recall(world, seed, QUESTIONS),
        "reading": questions.reading(world, seed, QUESTIONS),
        "stories": questions.stories(world, seed, QUESTIONS),
        "weather": questions.weather(world, seed, QUESTIONS, seen),
    }
    for name, task in rows.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in task))


def build_calibration_text(out: Path) -> None:
    """Text of the same world that no model was trained on, documents parted by blank lines."""
    stream, size, chosen = documents(build_world(WORLD), CALIBRATION_SEED), 0, []
    while size < CALIBRATION_CHARACTERS:
        batch = list(islice(stream, 1_000))
        chosen += batch
        size += sum(map(len, batch))
    out.write_text("\n\n".join(chosen) + "\n")


def build_model(size: str, seed: int, out: Path) -> None:
    """Train a model and write its directory, in half precision, with the log of its training."""
    import torch

    from pocket.train import train

    torch.set_num_threads(1)
    world = build_world(WORLD)
    tokenizer = learn_tokenizer(world, TOKENIZER_SEED)
    windows = corpus_windows(world, tokenizer, CORPUS_SEED, windows_needed())
    out.mkdir(parents=True, exist_ok=True)
    model = train(size, tokenizer, windows, seed, out / "training.jsonl")
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def windows_needed() -> int:
    from pocket.train import WINDOWS_PER_STEP

    return STEPS * WINDOWS_PER_STEP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tasks", help="the four tasks' questions and the calibration text")
    model = commands.add_parser("model", help="train one model")
    model.add_argument("size", choices=("pocket-300k", "pocket-1m", "pocket-4m"))
    model.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.command == "tasks":
        build_tasks(HERE / "tasks", QUESTION_SEED)
        build_calibration_text(HERE / "text" / "calibration.txt")
    else:
        name = arguments.size + (f"-seed{arguments.seed}" if arguments.seed else "")
        build_model(arguments.size, arguments.seed, HERE / "models" / name)


if __name__ == "__main__":
    main()
