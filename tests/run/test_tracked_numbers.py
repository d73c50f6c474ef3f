"""The numbers that W&B gets one by one, and how many keys they are."""

from __future__ import annotations

import dataclasses

import pytest

from bitsure.records.answer_units import answer_units
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.results.quantization import RoundedStates
from bitsure.run import tracking
from bitsure.run.tracked_numbers import NUMBER_COLUMNS, fact_values, mean_values, number_rows, task_values
from tests.builders.answers import paired_runs
from tests.builders.result_files import costs, model_origin, quantization
from tests.builders.settings import MARGINS, METRIC
from tests.builders.written import written

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the results on 30 tasks, of which two were measured and the others are copies of the first."""
    pairs = [paired_runs(20, task=f"task_{k}", seed=k)[:2] for k in range(2)]
    full, quantized = ([row for pair in pairs for row in pair[side]] for side in (0, 1))
    measured = build(tmp_path_factory.mktemp("many"), quantized, full, METRIC, MARGINS, About("many"))

    def with_copies(of_task: dict) -> dict:
        return of_task | {f"task_{k}": of_task["task_0"] for k in range(2, 30) if "task_0" in of_task}

    numbers = {name: with_copies(getattr(measured, name)) for name in ("metrics", "baseline_metrics", "comparison")}
    verdict = measured.verdict.model_copy(update={"tasks": with_copies(measured.verdict.tasks)})
    figures = {kind: with_copies(charts) for kind, charts in measured.figures.items()}
    return dataclasses.replace(measured, **numbers, verdict=verdict, figures=figures)


def test_the_headline_has_full_precision_the_change_and_its_interval_beside_each_mean(report):
    values = {key: value for group in mean_values(report) for key, value in group.items()}
    assert 25 <= len(values) <= 35
    change = report.comparison["macro_average"]["accuracy"]
    assert values["accuracy/mean"] == report.metrics["macro_average"]["accuracy"].value
    assert values["accuracy/mean/baseline"] == report.baseline_metrics["macro_average"]["accuracy"].value
    beside = [values[f"accuracy/mean/{name}"] for name in ("change", "change_ci_low", "change_ci_high")]
    assert beside == [change.value, change.ci_low, change.ci_high]
    assert values["flip_rate/mean"] == report.comparison["macro_average"]["flip_rate"].value


def test_of_many_tasks_the_first_have_keys_and_all_are_in_the_table(report):
    groups = [fact_values(quantization(), costs(), model_origin()), *mean_values(report)]
    values, charts = tracking._selected(groups, report)
    assert len(values) + len(charts) <= tracking.MOST_KEYS
    assert {"accuracy/mean", "accuracy/task_0", "true_label_prob/task_0/change_p_adjusted"} <= set(values)
    assert {"reliability/task_0", "deferral/task_0", "forest/accuracy"} <= set(charts)
    assert not {key for key in (*values, *charts) if key.endswith("task_29")}
    rows = [dict(zip(NUMBER_COLUMNS, row, strict=True)) for row in number_rows(report)]
    [last] = [row for row in rows if (row["task"], row["metric"]) == ("task_29", "true_label_prob")]
    test = report.comparison["task_29"]["true_label_prob"]
    assert (last["change"], last["p_adjusted"]) == (test.value, test.p_adjusted)
    assert last["value"] - last["baseline"] == pytest.approx(last["change"])


def test_a_text_has_its_perplexity_and_its_divergence(report):
    task, own = "text/local/gptq", report.metrics["task_0"]["nll"]
    divergence = report.comparison["task_0"]["kl_divergence"]
    of_text = dataclasses.replace(
        report, metrics={task: {"perplexity": own}}, comparison={task: {"kl_divergence": divergence}}, baseline_metrics={}
    )
    assert task_values(of_text, task) == {f"perplexity/{task}": own.value, f"kl_divergence/{task}": divergence.value}


def test_every_rounded_part_has_its_numbers():
    states = RoundedStates(
        **{"bits": 4, "group_size": 32, "symmetric": True, "format": "int", "off_grid": 0.0, "always_zero": []},
        errors={"keys": 0.1, "values": 0.3},
        values_per_token=8.0,
        bits_per_value=4.5,
    )
    model = model_origin().model_copy(update={"parameters": 1_000_000, "bytes_on_disk": 2_000_000})
    values = fact_values(quantization(keys_and_values=states), costs(), model)
    assert values == {
        "quantization/bits_per_weight": 4.2,
        "quantization/relative_error": 0.1,
        "quantization/bytes": 672_500,
        "quantization/keys_and_values/bits": 4.5,
        "quantization/keys_and_values/error": pytest.approx(0.2),
        "quantization/keys_and_values/bytes_per_token": 4.5,
        "costs/quantizing/seconds": 2.5,
        "costs/quantizing/peak_memory_bytes": 10**9,
        "costs/scoring_quantized/seconds": 1.0,
        "costs/scoring_quantized/tokens_per_second": 900.0,
        "costs/scoring_quantized/peak_memory_bytes": 10**9,
    }


def test_a_task_whose_answers_are_written_has_where_the_models_part(tmp_path):
    full, quantized = (
        answer_units(written([text] * 40, [True] * 40, [[-0.1, -0.2]] * 40)) for k, text in enumerate(("4", "5"))
    )
    built = build(tmp_path, quantized, full, METRIC, MARGINS, About("written"))
    values = task_values(built, "free")
    assert values["divergence/identical/free"] == 0.0 and values["divergence/other_wording/free"] == 0.0
    assert {row[1] for row in number_rows(built)} >= {"divergence/per_token", "token_probability/auroc"}
