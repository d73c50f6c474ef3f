"""The family's table: `python -m pocket.table multirun/pocket` reads the cells of sweeps/pocket.yaml and prints Markdown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bitsure import records
from bitsure.metrics.confidence import Questions, questions

HERE = Path(__file__).parent
TASKS = ("pocket_recall", "pocket_reading", "pocket_stories", "pocket_weather")


def full_precision_rows(cells: list[Path]) -> list[list[str]]:
    """A row a model: accuracy and mean confidence per task, the share of unsure questions, distances on the chance task."""
    rows = {}
    for cell in cells:
        model = model_name(cell)
        if model in rows:
            continue
        tasks = records.by_task(records.read(cell / "baseline.parquet")[0])
        asked = {task: questions(found) for task, found in tasks.items()}
        unsure = np.concatenate([q.confidence < 0.6 for q in asked.values()]).mean()
        to_truth, to_seen = weather_distances(asked["pocket_weather"])
        numbers = [f"{asked[task].correct.mean():.3f} / {asked[task].confidence.mean():.3f}" for task in TASKS]
        rows[model] = [model, *numbers, f"{unsure:.0%}", f"{to_truth:.3f}", f"{to_seen:.3f}"]
    return [*(rows[model] for model in sorted(rows, key=size)), truth_row()]


def truth_row() -> list[str]:
    """The accuracy of who knows everything and, of the weather, the true probabilities."""
    weather = np.mean([int(np.argmax(row["p"])) == row["label"] for row in documents("weather")])
    return ["best possible", "1", "1", "1", f"{weather:.3f}", "", "0", ""]


def documents(task: str) -> list[dict]:
    return [json.loads(line) for line in (HERE / "tasks" / f"{task}.jsonl").read_text().splitlines()]


def weather_distances(asked: Questions) -> tuple[float, float]:
    """Mean total variation between the model's choice probabilities and the true ones, and the training frequencies.

    asked: every question of the task, in the order of its file.
    """
    p = asked.p.reshape(len(asked), -1)
    rows = documents("weather")
    truth, seen = np.array([row["p"] for row in rows]), np.array([row["seen"] for row in rows], dtype=float)
    seen /= seen.sum(1, keepdims=True)
    return tuple(float(np.abs(p - other).sum(1).mean() / 2) for other in (truth, seen))


def quantized_rows(cells: list[Path]) -> list[list[str]]:
    """A row a cell: the change of the true-label probability per task with its interval; * where significant."""
    rows = []
    for cell in sorted(cells, key=lambda cell: (*size(model_name(cell)), -bits(cell))):
        comparison = json.loads((cell / "comparison.json").read_text())
        proof = json.loads((cell / "quantization.json").read_text())
        changes = []
        for task in TASKS:
            p = comparison[task]["true_label_prob"]
            star = " *" if p["significant"] else ""
            changes.append(f"{p['value']:+.3f} [{p['ci_low']:+.3f}, {p['ci_high']:+.3f}]{star}")
        rows.append([model_name(cell), proof["quantizer"], f"{proof['bits_per_weight']:.2f}", *changes])
    return rows


def model_name(cell: Path) -> str:
    return json.loads((cell / "provenance.json").read_text())["model"]["name"]


def bits(cell: Path) -> float:
    return json.loads((cell / "quantization.json").read_text())["bits_per_weight"]


def size(model: str) -> tuple[int, str]:
    return ("pocket-300k", "pocket-1m", "pocket-4m").index(model.split("-seed")[0]), model


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    cells = [path.parent for path in parser.parse_args().sweep.glob("*/comparison.json")]
    short = [task.removeprefix("pocket_") for task in TASKS]
    print(
        markdown(
            ["model", *short, "confidence < 0.6", "TV to truth", "TV to training text"],
            full_precision_rows(cells),
        )
    )
    print()
    print(markdown(["model", "quantizer", "bits per weight", *short], quantized_rows(cells)))


if __name__ == "__main__":
    main()
