"""costs.json's numbers of scoring, worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

from bitsure.base.work import COST_FILE, EntryCost, read_cost, write_cost
from bitsure.scoring.scoring_costs import total_costs

PETS = EntryCost("scoring", 2.0, 1e9, peak_memory_bytes=7, tokens=100, questions=20)


def test_tasks_are_summed_and_their_highest_peaks_kept():
    costs = total_costs({"a": PETS, "b": replace(PETS, seconds=3.0, tokens=400, peak_memory_bytes=5), "resumed": None})
    assert (costs.seconds, costs.tokens, costs.tokens_per_second) == (5.0, 500, 100.0)
    assert (costs.peak_memory_bytes, costs.peak_gpu_memory_bytes) == (7, None)
    assert costs.by_task.keys() == {"a", "b"} and costs.by_task["a"].tokens_per_second == 50


def test_costs_of_resumed_scoring_are_unknown():
    assert total_costs({"resumed": None}) is None


def test_a_cost_is_read_back_from_the_store_as_it_was_written(tmp_path):
    assert read_cost(tmp_path) is None
    write_cost(tmp_path, PETS)
    assert read_cost(tmp_path) == PETS


def test_a_cost_that_was_written_before_peaks_were_kept_is_read(tmp_path):
    (tmp_path / COST_FILE).write_text(json.dumps({"seconds": 1.0, "tokens": 5}))
    costs = total_costs({"a": read_cost(tmp_path)})
    assert costs.tokens_per_second == 5 and costs.peak_memory_bytes is None
