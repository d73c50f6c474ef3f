"""Make the embedded default again: `python -m pocket.build tasks`, `python -m pocket.build model pocket-1m --seed 0`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from pocket import questions
from pocket.corpus import corpus_windows, learn_tokenizer
from pocket.phrases import DOCUMENT_SHARES, SECOND_SHARES, TUNING_SHARES, count_weather, documents
from pocket.sizes import SIZES, STEPS, WINDOWS_PER_STEP, Cycle
from pocket.world import WorldConfig, build_world

HERE = Path(__file__).parent
WORLD = WorldConfig()
TOKENIZER_SEED, CORPUS_SEED, CALIBRATION_SEED = 1, 2, 3
QUESTION_SEED = 2028  # fresh: worlds, and the training of pocket-4m, were chosen on questions drawn with seeds 5, 2026 and 2027
QUESTIONS = 1000  # of each task
QUESTIONS_TO_FIND = 20  # of each length and depth
SECOND_SEED, SECOND_STEPS = 4, 1000
TUNED_FROM, TUNED, TUNING_SEED, TUNING_STEPS = "pocket-1m", "pocket-1m-tuned", 10, 500
SAVED_EVERY = 30.0  # seconds of further training
CALIBRATION_CHARACTERS = 1_000_000
SCORED_SEED, SCORED_CHARACTERS = 6, 100_000
DOMAIN_SEEDS, DOMAIN_CHARACTERS = {"story": 8, "weather": 9}, 200_000


def build_tasks(out: Path, seed: int) -> None:
    """Write the questions of all tasks, drawn with `seed`, as JSONL."""
    world = build_world(WORLD)
    tokenizer = learn_tokenizer(world, TOKENIZER_SEED)
    windows = corpus_windows(world, tokenizer, CORPUS_SEED, STEPS * WINDOWS_PER_STEP)
    seen = sum(map(count_weather, tokenizer.batch_decode(windows.tolist())), Counter())
    rows = {
        "recall": questions.recall(world, seed, QUESTIONS),
        "reading": questions.reading(world, seed, QUESTIONS),
        "stories": questions.stories(world, seed, QUESTIONS),
        "weather": questions.weather(world, seed, QUESTIONS, seen),
        "write": questions.write(world, seed, QUESTIONS),
        "pairs": questions.pairs(world, seed, QUESTIONS_TO_FIND),
        "words": questions.words(world, seed, QUESTIONS_TO_FIND),
    }
    for name, task in rows.items():
        (out / f"{name}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in task), encoding="utf-8"
        )


def build_texts(out: Path) -> None:
    """Write text of the same world that no model was trained on: to calibrate with, of all kinds or one, and to score."""
    calibration = _documents(CALIBRATION_SEED, CALIBRATION_CHARACTERS)
    (out / "calibration.txt").write_text("\n\n".join(calibration) + "\n", encoding="utf-8")
    for kind, seed in DOMAIN_SEEDS.items():
        documents_of_kind = _documents(seed, DOMAIN_CHARACTERS, {kind: 1.0})
        (out / f"{kind}.txt").write_text("\n\n".join(documents_of_kind) + "\n", encoding="utf-8")
    lines = (json.dumps({"text": document}, ensure_ascii=False) for document in _documents(SCORED_SEED, SCORED_CHARACTERS))
    (out / "scored.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _documents(seed: int, characters: int, shares: Mapping[str, float] = DOCUMENT_SHARES) -> list[str]:
    stream, size, chosen = documents(build_world(WORLD), seed, shares), 0, []
    while size < characters:
        batch = list(islice(stream, 1_000))
        chosen += batch
        size += sum(map(len, batch))
    return chosen


def build_model(size: str, seed: int, out: Path) -> None:
    """Train a model and write its directory, in half precision, with the log of its training."""
    import torch

    from pocket import train

    torch.set_num_threads(1)
    world = build_world(WORLD)
    tokenizer = learn_tokenizer(world, TOKENIZER_SEED)
    chosen = SIZES[size]
    windows = corpus_windows(world, tokenizer, CORPUS_SEED, chosen.steps * WINDOWS_PER_STEP)
    model, log = train.build_model(chosen, tokenizer, seed), _log(out)
    log.unlink(missing_ok=True)
    train.Training(model, tokenizer, windows, seed, chosen.cycle).run(log)
    _save(model, tokenizer, out)


def train_further(base: Path, out: Path, cycle: Cycle, seed: int, n_steps: int, shares: Mapping[str, float]) -> None:
    """One more cycle for a model that has had its first, on other text. The same command goes on where one was stopped."""
    import torch
    from transformers import AutoTokenizer, OPTForCausalLM

    from pocket import train

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    windows = corpus_windows(build_world(WORLD), tokenizer, seed, n_steps * WINDOWS_PER_STEP, shares)
    model, log, unfinished = OPTForCausalLM.from_pretrained(base).float(), _log(out), out / "unfinished.pt"
    training = train.Training(model, tokenizer, windows, seed, cycle)
    if unfinished.exists():
        training.load(unfinished)
    elif base != out:
        log.unlink(missing_ok=True)
    while not training.run(log, SAVED_EVERY):
        training.save(unfinished)
    unfinished.unlink(missing_ok=True)
    _save(model, tokenizer, out)


def _log(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    return out / "training.jsonl"


def _save(model, tokenizer, out: Path) -> None:
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tasks", help="the tasks' questions, the calibration text and the text to score")
    model = commands.add_parser("model", help="train one model")
    model.add_argument("size", choices=SIZES)
    model.add_argument("--seed", type=int, default=0)
    model.add_argument("--on", action="store_true", help="train it on, for a second cycle (pocket-4m had one)")
    commands.add_parser("tuned", help=f"teach a copy of {TUNED_FROM} to write answers in two steps")
    arguments = parser.parse_args()
    models = HERE / "models"
    if arguments.command == "tasks":
        build_tasks(HERE / "tasks", QUESTION_SEED)
        build_texts(HERE / "text")
    elif arguments.command == "tuned":
        cycle = Cycle(rate=0.5)
        train_further(models / TUNED_FROM, models / TUNED, cycle, TUNING_SEED, TUNING_STEPS, TUNING_SHARES)
    else:
        out = models / (arguments.size + (f"-seed{arguments.seed}" if arguments.seed else ""))
        if arguments.on:
            train_further(out, out, Cycle(rate=0.5), SECOND_SEED, SECOND_STEPS, SECOND_SHARES)
        else:
            build_model(arguments.size, arguments.seed, out)


if __name__ == "__main__":
    main()
