"""Tables of quantizers over draws of the calibration text: who is better, once all draws are there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.drawn_quantizers import DIVERGENCE, PROBABILITY, drawn_tables, effects_of, verdicts
from benchmarks.linear_contrast import Effect
from benchmarks.sweep import write_sweep
from benchmarks.swept_cells import SweptCells
from benchmarks.text_contrast import TOKENS, token_mean
from bitsure.base.errors import UserError
from bitsure.comparison.changes import AnswerChanges, write_changes
from bitsure.sweep.report.cell_results import CellResult, read_cells

BETTER, WORSE, SEEDS, QUESTIONS, TEXT = "gptq-w3", "awq-w3", 5, 300, "text/own/harness"
PAIR = [(BETTER, WORSE)]


@pytest.fixture
def sweep(tmp_path):
    """Return a sweep of five draws in which one quantizer loses less, on questions and on a text of twenty documents."""
    write_sweep(tmp_path / "once", 1, 1, 10, (BETTER, WORSE))
    tokens = pd.DataFrame({name: np.arange(400) for name in TOKENS}).assign(task=TEXT, document=np.repeat(np.arange(20), 20))
    rng = np.random.default_rng(0)
    for seed in range(SEEDS):
        for cell in (tmp_path / "once").iterdir():
            own = shutil.copytree(cell, tmp_path / "sweep" / f"{seed}-{cell.name}")
            config = yaml.safe_load((own / "config.yaml").read_text())
            config["calib"] |= {"seed": seed, "nsamples": 32, "seqlen": 128}
            config |= {"task": config["task"] | {"limit": 300}, "text": {"limit": 400}}
            (own / "config.yaml").write_text(yaml.safe_dump(config))
            proof = json.loads((own / "quantization.json").read_text())
            proof["calib_data"] = {"name": "pocket", "windows": 32, "seqlen": 256}
            (own / "quantization.json").write_text(json.dumps(proof))
            metrics = json.loads((own / "metrics.json").read_text())
            metrics[TEXT] = {"perplexity": {"value": 9.0, "ci_low": 8.0, "ci_high": 10.0, "n": 20}}
            (own / "metrics.json").write_text(json.dumps(metrics))
            loss = 0.1 * (config["quant"]["name"] == WORSE)
            values = {name: rng.normal(-loss, 0.05, QUESTIONS) for name in ("true_label_prob", "accuracy")}
            changes = AnswerChanges(np.arange(QUESTIONS, dtype=np.uint64), None, values)
            write_changes(own / "changes.parquet", {"task_0": changes})
            tokens.assign(kl_divergence=0.02 + loss / 10 + rng.normal(0, 0.001, 400)).to_parquet(own / "texts.parquet")
    return tmp_path / "sweep"


def test_a_pair_has_the_better_one_by_questions_and_by_tokens(sweep):
    cells = read_cells(sweep)
    lines = drawn_tables(cells, [*PAIR, (BETTER, "not-there")])
    assert lines[0] == "10 of 10 cells are done."
    [row] = [line.split(" | ") for line in lines if f"{BETTER} − {WORSE}" in line]
    assert row[2] == "5" and row[3].startswith("+0.1") and row[4].startswith("-0.0")
    assert row[5] == BETTER and row[6] == f"{BETTER} |" and not any("not-there" in line for line in lines)
    about = "task_0 (the first 300 questions of each); text/own/harness, "
    about += "the first 400 tokens (20 documents); calibrated on 32 × 128 tokens of"
    assert about in lines[2]
    assert any(line.startswith("Exploratory: one is better where p < 0.05, adjusted by Benjamini–Hochberg") for line in lines)
    effects = effects_of(SweptCells(cells), WORSE)
    assert effects[PROBABILITY].ci_low < -0.1 < effects[PROBABILITY].ci_high
    assert effects[DIVERGENCE].ci_low < 0.03 < effects[DIVERGENCE].ci_high and effects[DIVERGENCE].seeds == SEEDS


def test_nothing_is_judged_before_all_draws_are_there(sweep):
    [last] = sweep.glob(f"4-*-{WORSE}")
    (last / "status.json").write_text(json.dumps({**json.loads((last / "status.json").read_text()), "state": "running"}))
    lines = drawn_tables(read_cells(sweep), PAIR)
    assert lines[0] == "9 of 10 cells are done."
    [row] = [line for line in lines if f"{BETTER} − {WORSE}" in line]
    assert row.count("not yet: 4 of 5 draws") == 2
    with pytest.raises(UserError, match="No cell of the sweep is done"):
        drawn_tables([], PAIR)


def test_fewer_than_five_draws_are_too_few(sweep):
    few = [cell for cell in read_cells(sweep) if cell.config["calib"]["seed"] < 2]
    other = [replace(cell, model_name="another") for cell in read_cells(sweep)]
    rows = [line for line in drawn_tables([*few, *other], PAIR) if f"{BETTER} − {WORSE}" in line]
    assert [row.count("2 draws: too few") for row in rows] == [2, 0] and rows[1].endswith(f"| {BETTER} | {BETTER} |")


def test_cells_that_do_not_fit_together_are_refused(sweep):
    cells = read_cells(sweep)
    config = cells[0].config

    def changed(group: str, **settings: object) -> list[CellResult]:
        return [replace(cells[0], config={**config, group: config[group] | settings}), *cells[1:]]

    with pytest.raises(UserError, match=r"0-\S+ and \S+/0-\S+ have the same quantizer, quant=\S+ calib.name="):
        drawn_tables([*cells, cells[0]], PAIR)
    with pytest.raises(UserError, match=r"has task.limit=100 and \S+ 300. One table needs the same"):
        drawn_tables(changed("task", limit=100), PAIR)
    with pytest.raises(UserError, match=r"calib.nsamples=8"):
        drawn_tables(changed("calib", nsamples=8), PAIR)
    with pytest.raises(UserError, match=r"is calibrated on another, .* The table is of one calib.name"):
        drawn_tables(changed("calib", name="another"), PAIR)


def test_cells_without_a_text_or_a_size_leave_a_blank_and_limits_are_in_words(sweep):
    cells = [replace(cell, config={**cell.config, "task": {"limit": 0.5}}) for cell in read_cells(sweep)]
    metrics = {"task_0": cells[0].metrics["task_0"]}
    without = [replace(cell, quantization=None, metrics=metrics) for cell in cells if WORSE in cell.name]
    lines = drawn_tables([cell for cell in cells if WORSE not in cell.name] + without, PAIR)
    rows = [line.count("|") for line in lines if line.startswith("|")]
    assert "(the first 50% of the questions of each)" in lines[2] and rows[:4] == [7] * 4
    [row] = [line for line in lines if f"| {WORSE} |" in line]
    assert row.split(" | ")[2].strip() == "" and row.endswith("|  |")
    million = [replace(cell, config={**cell.config, "task": {"limit": 1_000_000}}) for cell in cells]
    assert "the first 1,000,000 questions" in drawn_tables(million, PAIR)[2]


def test_a_sweep_that_scores_no_text_has_questions_alone(sweep):
    cells = []
    for cell in read_cells(sweep):
        settings = {name: group for name, group in cell.config.items() if name != "text"}  # as such a run writes it
        cells.append(replace(cell, config=settings, metrics={"task_0": cell.metrics["task_0"]}))
    lines = drawn_tables(cells, PAIR)
    assert "task_0 (the first 300 questions of each); calibrated on 32 × 128 tokens" in lines[2]


def test_verdicts_are_adjusted_for_the_number_of_pairs_that_are_judged():
    def effect(p: float, seeds: int = 5) -> Effect:
        return Effect(0.1, 0.01, 0.19, seeds, p)

    few = {("a", "b"): effect(0.03), ("a", "c"): effect(0.5, 0), ("b", "c"): effect(1e-9, 4)}
    assert verdicts(1, {("a", "b"): effect(0.03)}, 5) == {("a", "b"): "a"}
    assert list(verdicts(1, few, 5).values()) == ["undecided", "undecided", "not yet: 4 of 5 draws"]
    assert verdicts(-1, few | {("a", "b"): effect(0.02)}, 5)["a", "b"] == "b"


def test_the_error_of_a_mean_over_tokens_is_that_of_documents(sweep):
    first, second = read_cells(sweep)[:2]
    table = pd.read_parquet(first.directory / "texts.parquet")
    by_document = table.groupby("document")["kl_divergence"].mean()
    value, error, n, unit = token_mean("kl_divergence", first)
    assert value == pytest.approx(table["kl_divergence"].mean()) and (n, unit) == (20, "document")
    assert error == pytest.approx(by_document.std() / 20**0.5)
    assert token_mean("kl_divergence", first, second)[0] == pytest.approx(value - token_mean("kl_divergence", second)[0])
