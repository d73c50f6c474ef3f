"""What is scored without choices: golden values by hand, the paired tests, the verdict and the tables."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_rel

from bitsure.base.errors import UserError
from bitsure.comparison import compare, judge, was_compared
from bitsure.comparison.noise_control import NOISE_CONTROL
from bitsure.comparison.verdict_words import verdict_details
from bitsure.metrics import measure
from bitsure.metrics.metric_names import MACRO
from bitsure.metrics.questions import question_set
from bitsure.metrics.text_metrics import text_metrics, text_set
from bitsure.records.record import Record, by_task, to_table
from bitsure.records.validity import check_records
from bitsure.report import page_summary, tables
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.run.tracked_numbers import mean_values, task_values
from bitsure.run.tracked_samples import SAMPLE_COLUMNS, sample_rows
from tests.builders.records import record
from tests.builders.settings import MARGINS, METRIC

pytestmark = pytest.mark.usefixtures("blank_pictures")


def continuation(logprob: float, greedy: bool, doc_id: int, task="last") -> Record:
    return record([logprob], task=task, doc_id=doc_id, choices=["word"], choice_greedy=[greedy])


def page_of(logprob: float, tokens: int, words: int, n_bytes: int, doc_id: int) -> Record:
    made = record([logprob], task="pages", doc_id=doc_id, choices=["a page"], choice_tokens=[tokens])
    return dataclasses.replace(made, words=words, bytes=n_bytes, token_logprobs=[[logprob / tokens] * tokens])


def both_kinds(shift: float = 0.0, n: int = 60, seed: int = 0) -> pa.Table:
    """Continuations and pages of which the NLL is `shift` more a token, with some noise."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(seed)
    rows = []
    for i in range(n):
        logprob = -rng.exponential(1.5) - shift + 0.05 * noise.normal() * (shift > 0)
        rows.append(continuation(min(logprob, 0.0), logprob > -1, i))
        tokens = int(rng.integers(50, 400))
        nll = tokens * (2 + 0.3 * rng.normal() + shift + 0.01 * noise.normal() * (shift > 0))
        rows.append(page_of(-nll, tokens, tokens * 3 // 4, tokens * 4, i))
    return to_table(rows)


def test_golden_values():
    found = measure([continuation(-1.0, True, 0), continuation(-3.0, False, 1)], METRIC)["last"]
    value = {name: one.value for name, one in found.items()}
    assert value == pytest.approx(
        {"accuracy": 0.5, "true_label_prob": (math.exp(-1) + math.exp(-3)) / 2, "nll": 2.0, "perplexity": math.exp(2)}
    )
    found = measure([page_of(-10.0, 5, 4, 20, 0), page_of(-50.0, 15, 11, 60, 1)], METRIC)["pages"]
    value = {name: one.value for name, one in found.items()}
    assert value == pytest.approx(
        {
            "nll": 3.0,
            "perplexity": math.exp(3),
            "word_perplexity": math.exp(4),
            "byte_perplexity": math.exp(0.75),
            "bits_per_byte": 0.75 / math.log(2),
        }
    )


def test_intervals_cover_and_hold_the_value():
    for values in measure(both_kinds(), METRIC).values():
        for one in values.values():
            assert one.ci_low < one.value < one.ci_high and one.n == 60


def test_influence_gives_the_bootstraps_standard_error():
    from bitsure.metrics.bootstrap import resample_weights
    from bitsure.metrics.estimation import estimate

    for found in by_task(both_kinds(n=2000)).values():
        scored = text_set(found)
        resampled = estimate(text_metrics(scored), scored, resample_weights(2000, 400, 0))
        for name, one in estimate(text_metrics(scored), scored, None).items():
            assert one.standard_error == pytest.approx(resampled[name].standard_error, rel=0.15), name


def test_two_models_are_compared_with_tests_that_fit():
    before, after = both_kinds(), both_kinds(0.05)
    found = compare(before, after, METRIC)
    last, pages = found["last"], found["pages"]
    was, now = (text_set(by_task(side)["last"]) for side in (before, after))
    assert last["true_label_prob"].family == "primary"
    assert last["true_label_prob"].p_value == pytest.approx(ttest_rel(now.true_label_prob, was.true_label_prob).pvalue)
    assert last["nll"].test == "paired t-test"
    assert last["nll"].p_value == pytest.approx(ttest_rel(now.nll, was.nll).pvalue)
    assert last["correct_to_wrong"].test.startswith("McNemar") and last["accuracy"].interval.endswith("Agresti–Min")
    assert pages["nll"].value == pytest.approx(0.05, abs=0.005) and pages["nll"].family == "exploratory"
    assert pages["nll"].p_value < 1e-6 and pages["nll"].ci_low > 0
    assert "true_label_prob" not in pages and "accuracy" not in pages and was_compared(pages)
    assert MACRO not in found  # numbers of different kinds have no mean


def test_of_texts_of_equal_length_the_linearized_test_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    nlls = rng.normal(100, 5, size=(2, 40))
    before, after = ([page_of(-nll, 50, 40, 200, i) for i, nll in enumerate(side)] for side in nlls)
    found = compare(before, after, METRIC)["pages"]["nll"]
    assert found.p_value == pytest.approx(ttest_rel(nlls[1], nlls[0]).pvalue)


def test_the_test_of_texts_keeps_its_level():
    rng, rejected = np.random.default_rng(2), 0
    fast = dataclasses.replace(METRIC, resamples=100)
    for _ in range(120):
        tokens = rng.integers(20, 600, 40)
        nlls = tokens * rng.normal(3, 0.4, 40) + tokens * rng.normal(0, 0.05, (2, 40))
        before, after = ([page_of(-side[i], *[int(tokens[i])] * 3, i) for i in range(40)] for side in nlls)
        rejected += compare(before, after, fast)["pages"]["nll"].p_value < 0.05
    assert rejected <= 14  # 6 expected; more than 14 come once in 600 times


def test_the_verdict_is_of_what_there_is():
    judged = judge(compare(both_kinds(), both_kinds(0.2), METRIC), MARGINS, METRIC).tasks
    assert set(judged["last"].margins) == {"accuracy", "nll"} and set(judged["pages"].margins) == {"nll"}
    assert judged["pages"].verdict == "inferior" and "Negative log-likelihood +0.2" in judged["pages"].sentence
    assert judged["pages"].smallest_detectable > 0
    same = judge(compare(both_kinds(), both_kinds(), METRIC), MARGINS, METRIC).tasks
    assert same["pages"].verdict == "non-inferior"


def test_the_noise_control_has_what_there_is():
    noisy = [both_kinds(0.01, seed=seed) for seed in range(19)]
    found = compare(both_kinds(), both_kinds(0.1), METRIC, noisy=noisy)
    assert f"{NOISE_CONTROL}nll" in found["pages"] and f"{NOISE_CONTROL}harm" not in found["pages"]
    said = verdict_details(judge(found, MARGINS, METRIC))["Against the noise control:"]
    assert any(s.startswith("pages: noise of the same output error (19 seeds) changes the NLL of a token") for s in said)
    assert any(s.startswith("last: noise of the same output error (19 seeds) changes the right answer's prob") for s in said)


def test_page_table_and_tracking_hold_all_kinds(tmp_path):
    choices = [record([-1.0 - i % 3, -2.0], gold=i % 2, doc_id=i) for i in range(40)]
    sides = [pa.concat_tables([to_table(choices), both_kinds(shift)]) for shift in (0.0, 0.05)]
    made = build(tmp_path, sides[1], sides[0], METRIC, MARGINS, About("all kinds"))
    assert set(made.metrics) == {"t", "last", "pages"} and set(made.figures["reliability"]) == {"t"}
    html = made.page.read_text()
    assert "pages: the perplexity per word changed from" in html and "word_perplexity" in html
    printed = tables.terminal_table(made.metrics, made.comparison, "all kinds", 0.95, 0.01)
    labels = list(printed.columns[1].cells)
    assert labels.count("bits per byte") == 1 and labels.count("accuracy") == 2 and labels.count("binned cal. error") == 1
    rows = [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in sample_rows(sides[1], sides[0], METRIC, {})]
    assert {row["task"] for row in rows} == {"t", "last"}
    of_text = [row for row in rows if row["task"] == "last"]
    assert all(row["prediction_after"] is None and row["confidence_after"] is None for row in of_text)
    assert all(0 < row["true_label_prob_after"] <= 1 and row["correct_after"] in (True, False) for row in of_text)
    assert set(task_values(made, "last")) > {"accuracy/last", "true_label_prob/last/change"}
    assert set(task_values(made, "pages")) >= {"word_perplexity/pages", "word_perplexity/pages/change"}
    assert "accuracy/mean/change" in mean_values(made)[0]  # the only task with choices is the mean
    assert page_summary.sentences(made.comparison, 0.01)[-1].startswith("pages: ")


def test_one_choice_among_several_is_refused():
    mixed = to_table([record([-1.0, -2.0], doc_id=0), record([-1.0], doc_id=1)])
    with pytest.raises(UserError, match="has fewer than two choices, unlike others of its task"):
        check_records(mixed, "here")
    check_records(both_kinds(), "here")


def test_no_confidence_is_taken_from_a_single_choice():
    with pytest.raises(UserError, match="task last has no choices"):
        question_set([continuation(-1.0, True, 0)])


def test_records_of_a_task_that_is_called_as_the_mean_are_refused():
    named = to_table([record([-1.0, -2.0], doc_id=0, task="macro_average")])
    with pytest.raises(UserError, match="here: a task is called macro_average, which is what the mean over tasks is called"):
        check_records(named, "here")
