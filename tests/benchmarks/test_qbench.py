"""The tables of docs/qbench.md: contrasts over draws and questions, and claims that are judged only with all draws."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
import yaml

from benchmarks import qbench, qbench_claims
from benchmarks.linear_contrast import Term, _p_value, effect_of, effect_over_draws, mean_over_tasks
from benchmarks.regions import REGION, fill
from benchmarks.sweep import write_sweep
from benchmarks.swept_cells import SweptCells
from bitsure.comparison.changes import AnswerChanges, write_changes
from bitsure.metrics.across import over_draws
from bitsure.metrics.bootstrap import normal_interval, t_interval
from bitsure.sweep.report.cell_results import read_cells

QUANTIZERS = ("gptq-w3", "awq-w3", "w3", "kv2")
SEEDS, TEXTS, TASKS, QUESTIONS = 5, ("pocket", "story", "weather"), ("task_0", "task_1"), 200
OWN = 0.05  # what text of a task's own kind adds with gptq-w3


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Return a sweep in which gptq-w3 keeps more of a task with text of its kind, and kv2 reads no text."""
    place = tmp_path_factory.mktemp("qbench")
    write_sweep(place / "once", 1, 2, 10, QUANTIZERS)
    rng = np.random.default_rng(0)
    for text in TEXTS:
        for seed in range(SEEDS):
            for cell in (place / "once").iterdir():
                config = yaml.safe_load((cell / "config.yaml").read_text())
                quantizer = config["quant"]["name"]
                reads = quantizer != "kv2"
                if not reads and (text, seed) != (TEXTS[0], 0):
                    continue
                own = shutil.copytree(cell, place / "sweep" / f"{text}-{seed}-{cell.name}")
                config["calib"] |= {"name": text, "seed": seed}
                (own / "config.yaml").write_text(yaml.safe_dump(config))
                proof = json.loads((own / "quantization.json").read_text())
                proof["calib_data"] = {"name": text, "windows": 32 * reads, "seqlen": 256}
                (own / "quantization.json").write_text(json.dumps(proof))
                draw = rng.normal(0, 0.002)
                write_changes(own / "changes.parquet", dict(_changes(quantizer, text, draw, rng)))
    return place / "sweep"


def _changes(quantizer: str, text: str, draw: float, rng: np.random.Generator):
    for task, kind in zip(TASKS, ("story", "weather"), strict=True):
        shift = draw + OWN * (quantizer == "gptq-w3" and text == kind) - 0.6 * (quantizer == "kv2")
        values = {name: rng.normal(shift, 0.05, QUESTIONS) for name in ("true_label_prob", "accuracy")}
        yield task, AnswerChanges(np.arange(QUESTIONS, dtype=np.uint64), None, values)


@pytest.fixture
def domains(monkeypatch):
    monkeypatch.setattr(qbench_claims, "DOMAINS", {"story": "task_0", "weather": "task_1"})
    right = AnswerChanges(np.arange(QUESTIONS, dtype=np.uint64), None, {"accuracy": np.ones(QUESTIONS)})
    monkeypatch.setattr(SweptCells, "before", dict.fromkeys(TASKS, right))


def test_a_contrast_is_the_mean_over_draws_of_paired_differences(sweep):
    [cells] = qbench.by_model(read_cells(sweep))
    effect = effect_of(cells, [Term(1.0, "gptq-w3", "story", "task_0"), Term(-1.0, "awq-w3", "pocket", "task_0")])
    differences = np.array(
        [
            cells.changes("gptq-w3", "story", seed, "task_0").values["true_label_prob"]
            - cells.changes("awq-w3", "pocket", seed, "task_0").values["true_label_prob"]
            for seed in range(SEEDS)
        ]
    )
    expected = over_draws(differences.mean(1).tolist(), (differences.std(1, ddof=1) / QUESTIONS**0.5).tolist(), 0.95)
    assert effect.value == pytest.approx(expected.value) and effect.seeds == SEEDS
    assert effect.ci_high - effect.ci_low == pytest.approx(expected.ci_high - expected.ci_low, rel=0.1)
    assert (effect.p_value < 0.05) == (effect.ci_low > 0)


def test_what_is_kept_is_counted_question_by_question(sweep, domains):
    [cells] = qbench.by_model(read_cells(sweep))
    effect = qbench_claims.kept_accuracy("kv2", -1)(cells)
    lost = np.mean([cells.changes("kv2", "pocket", 0, task).values["accuracy"].mean() for task in TASKS])
    assert effect.value == pytest.approx(-lost - 0.2)  # all were right before


def test_a_quantizer_without_data_has_one_cell_for_every_text_and_draw(sweep):
    [cells] = qbench.by_model(read_cells(sweep))
    assert cells.reads_text("w3") and not cells.reads_text("kv2")
    assert effect_of(cells, mean_over_tasks(cells, (1.0, "kv2", "weather"))).seeds == 0
    assert effect_of(cells, mean_over_tasks(cells, (1.0, "kv2", "pocket"), (-1.0, "w3", "pocket"))).seeds == SEEDS
    assert effect_of(cells, mean_over_tasks(cells, (1.0, "gptq-w4", "pocket"))) is None


def test_a_rotation_is_drawn_also_when_one_cell_of_it_is_done(sweep):
    [cells] = qbench.by_model(read_cells(sweep))
    cells.by_calibration["kv2"]["pocket"][0].config["quant"]["transforms"] = ["rotate"]
    for others in ((), ((-1.0, "gptq-w3", "pocket"),)):
        assert effect_of(cells, mean_over_tasks(cells, (1.0, "kv2", "pocket"), *others)).seeds == 1


@pytest.mark.parametrize(("units", "freedom"), [(8, 7), (19, 18), (20, np.inf)])
def test_errors_of_few_documents_go_by_student_s_t(sweep, units, freedom):
    [cells] = qbench.by_model(read_cells(sweep))
    for draws in (1, 5):  # which agree, so that the interval is that of the documents alone
        effect = effect_over_draws(cells, [("kv2", "pocket")], [0.3] * draws, [0.1] * draws, units)
        assert (effect.ci_low, effect.ci_high) == pytest.approx(t_interval(0.3, 0.1, freedom, 0.95))


def test_one_document_decides_nothing(sweep):
    [cells] = qbench.by_model(read_cells(sweep))
    assert effect_over_draws(cells, [("kv2", "pocket")], [0.3], [0.1], 1).p_value == 1.0


def test_a_difference_of_0_without_variance_is_none(sweep):
    assert _p_value(partial(normal_interval, 0.0, 0.0)) == 1.0
    [cells] = qbench.by_model(read_cells(sweep))
    for quantizer in ("kv2", "gptq-w3"):
        same = mean_over_tasks(cells, (1.0, quantizer, "pocket"), (-1.0, quantizer, "pocket"))
        assert effect_of(cells, same).p_value == 1.0


def test_claims_are_confirmed_contradicted_or_not_decided(sweep, domains):
    tables = qbench.regions(read_cells(sweep))
    verdicts = {(row[0], row[-1]) for row in map(_row, tables["takeaways"]) if len(row) == 7}
    assert ("Text of the domain that is scored calibrates best (GPTQ, 3 bits)", "confirmed") in verdicts
    assert ("Text of the domain that is scored calibrates best (GPTQ, 4 bits)", "not yet") in verdicts
    assert ("GPTQ depends on the text more than AWQ", "confirmed") in verdicts
    assert ("Keys and values of 2 bits collapse", "confirmed") in verdicts
    assert tables["progress"][0] == "46 of 46 cells are done."
    assert [row[1] for row in map(_row, tables["data"])][2:] == ["gptq-w3", "awq-w3", "w3"]


def test_an_unfinished_sweep_is_counted_and_its_claims_wait(sweep, domains, tmp_path):
    partial = shutil.copytree(sweep, tmp_path / "partial")
    for cell in partial.glob("story-4-*-gptq-w3"):
        (cell / "status.json").write_text(json.dumps({"state": "running"}))
    tables = qbench.regions(read_cells(partial))
    assert tables["progress"][0] == "45 of 46 cells are done."
    [row] = [row for row in map(_row, tables["takeaways"]) if row and row[0].endswith("(GPTQ, 3 bits)")]
    assert row[-3:] == ["4", "", "not yet: 4 of 5 draws"]


def test_the_pages_have_a_place_for_each_table(sweep, domains):
    planned = read_cells(sweep)
    page, tables = qbench.PAGE.read_text(), qbench.regions(planned)
    assert sorted(name for _, name, _ in REGION.findall(page)) == sorted(tables)
    systems = qbench.SYSTEMS.read_text()
    assert "| Bits and schemes | Keys and values of 2 bits collapse |" in fill(
        systems, {"agreement": qbench.agreement(qbench.by_model(planned))}
    )


def _row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("|") else []
