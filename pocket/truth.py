"""What calibration estimates say where the truth is known: `python -m pocket.truth RUN_DIR` on a run of the weather task."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bitsure.base.decimals import decimal
from bitsure.metrics.bins import Bins
from bitsure.metrics.known_truth import estimator_performance
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.records.parquet import read_records
from bitsure.records.record import by_task

HERE = Path(__file__).parent
TEMPERATURES = (0.5, 1.0, 2.0)  # put on the model's own scores
DRAWS = 200


def rows(run: Path) -> list[list[str]]:
    """A row for each temperature and estimator; the model in full precision if the run compared, else its only one."""
    path = run / "baseline.parquet"
    found = read_records(path if path.is_file() else run / "records.parquet")[0]
    asked = question_set(by_task(found)["pocket_weather"])
    truth = np.array([row["p"] for row in documents("weather")])
    truth /= truth.sum(1, keepdims=True)
    table = []
    for temperature in TEMPERATURES:
        changed = asked.at_temperature(np.full(len(asked), 1 / temperature))
        distances = [f"{distance:.3f}" for distance in weather_distances(changed)]
        for name, one in estimator_performance(changed, truth, Bins.uniform(15), DRAWS, seed=0).items():
            numbers = [decimal(value, "+.4f") for value in (one.true, one.mean, one.bias, one.rmse)]
            table.append([f"{temperature:g}", *distances, name, *numbers])
    return table


def documents(task: str) -> list[dict]:
    return [json.loads(line) for line in (HERE / "tasks" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def weather_distances(asked: QuestionSet) -> tuple[float, float]:
    """Mean total variation between the model's choice probabilities and the true ones, and the training frequencies.

    asked: every question of the task, in the order of its file.
    """
    p = asked.p.reshape(len(asked), -1)
    rows = documents("weather")
    truth, seen = np.array([row["p"] for row in rows]), np.array([row["seen"] for row in rows], dtype=float)
    seen /= seen.sum(1, keepdims=True)
    return tuple(float(np.abs(p - other).sum(1).mean() / 2) for other in (truth, seen))


def best_accuracy() -> float:
    """Of who always says the weather that is truly the likeliest."""
    return float(np.mean([int(np.argmax(row["p"])) == row["label"] for row in documents("weather")]))


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    headings = ["temperature", "TV to truth", "TV to training text", "estimator", "true", "mean", "bias", "RMSE"]
    print(markdown(headings, rows(parser.parse_args().run)))
    print(f"\nWho knows the true probabilities is right on {best_accuracy():.3f} of the questions.")


if __name__ == "__main__":
    main()
