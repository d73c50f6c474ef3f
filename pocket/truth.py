"""What calibration estimates say where the truth is known: `python -m pocket.truth RUN_DIR` on a run of the weather task."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bitsure import records
from bitsure.metrics.calibration import Bins
from bitsure.metrics.confidence import questions
from bitsure.metrics.known_truth import performance
from pocket.table import documents, markdown, weather_distances

TEMPERATURES = (0.5, 1.0, 2.0)  # put on the model's own scores
DRAWS = 200


def rows(run: Path) -> list[list[str]]:
    """A row for each temperature and estimator; the model in full precision if the run compared, else its only one."""
    path = run / "baseline.parquet"
    found = records.read(path if path.is_file() else run / "records.parquet")[0]
    asked = questions(records.by_task(found)["pocket_weather"])
    truth = np.array([row["p"] for row in documents("weather")])
    truth /= truth.sum(1, keepdims=True)
    table = []
    for temperature in TEMPERATURES:
        changed = asked.at_temperature(np.full(len(asked), 1 / temperature))
        to_truth, _ = weather_distances(changed)
        for name, one in performance(changed, truth, Bins.uniform(15), DRAWS, seed=0).items():
            numbers = [f"{value:+.4f}" for value in (one.true, one.mean, one.bias, one.rmse)]
            table.append([f"{temperature:g}", f"{to_truth:.3f}", name, *numbers])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    headings = ["temperature", "TV to truth", "estimator", "true", "mean", "bias", "RMSE"]
    print(markdown(headings, rows(parser.parse_args().run)))


if __name__ == "__main__":
    main()
