"""Two models on one text: ratio, difference and correlation, by documents."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import compare
from bitsure.comparison.non_inferiority import judge
from bitsure.comparison.text_differences import perplexity_ratios
from bitsure.metrics import measure
from bitsure.records.record import Record
from bitsure.records.text_units import text_units
from bitsure.results import Difference
from tests.builders.records import record
from tests.builders.settings import MARGINS, METRIC
from tests.builders.texts import MADE_FROM, TASK, token_rows

N = 40  # documents, of 1 to 5 tokens


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(N), rng.integers(1, 6, N)).tolist()
    before = -rng.gamma(2.0, 1.0, len(documents))
    after = before - rng.normal(0.05, 0.1, len(documents))
    return [token_rows(documents, [0] * len(documents), side.tolist()) for side in (before, np.minimum(after, 0))]


def test_numbers_of_one_model_are_means_over_tokens(rows):
    nll = -rows[0]["logprob"].to_numpy().astype(np.float64)
    measured = measure(text_units(rows[0], MADE_FROM), METRIC)[TASK]
    assert {"nll", "perplexity", "bits_per_byte"} <= set(measured)
    assert measured["nll"].value == pytest.approx(nll.mean())
    assert measured["perplexity"].value == pytest.approx(math.exp(nll.mean()))
    assert measured["bits_per_byte"].value == pytest.approx(nll.sum() / (3 * len(nll)) / math.log(2))
    assert (measured["nll"].n, measured["nll"].resampled) == (N, "documents")


def test_the_ratio_s_logarithm_is_the_difference_of_the_nll(rows):
    values = compare(*(text_units(side, MADE_FROM) for side in rows), METRIC)[TASK]
    ratio, logarithm, nll = values["perplexity_ratio"], values["ln_perplexity_ratio"], values["nll"]
    assert ratio.value == pytest.approx(values["perplexity"].quantized / values["perplexity"].baseline)
    assert logarithm.value == pytest.approx(nll.value)
    assert (logarithm.ci_low, logarithm.ci_high) == (nll.ci_low, nll.ci_high)
    assert (ratio.ci_low, ratio.ci_high) == pytest.approx((math.exp(nll.ci_low), math.exp(nll.ci_high)))
    assert ratio.ci_low < ratio.value < ratio.ci_high


def test_the_ratio_of_a_broken_model_is_a_number():
    broken = perplexity_ratios(Difference(value=800.0, ci_low=790.0, ci_high=810.0, n=N))
    assert broken["ln_perplexity_ratio"].value == 800 and 1e300 < broken["perplexity_ratio"].value < math.inf


def test_a_verdict_on_a_text_counts_documents_or_windows(rows):
    compared = compare(*(text_units(side, MADE_FROM) for side in rows), METRIC)
    assert f"({N} documents or windows, 95% interval)" in judge(compared, MARGINS, METRIC).tasks[TASK].sentence


def test_a_text_on_which_full_precision_only_guesses_is_not_judged(rows):
    mean_nll = -float(np.mean(rows[0]["logprob"]))
    for size, takes_part in ((math.ceil(math.exp(mean_nll)), False), (50_000, True), (None, True)):
        made_from = {TASK: MADE_FROM[TASK] | {"vocabulary": size}}
        compared = compare(*(text_units(side, made_from) for side in rows), METRIC)
        verdict = judge(compared, MARGINS, METRIC)
        assert (verdict.verdict != "not judged") == takes_part == (TASK not in verdict.excluded)
        assert ("baseline_nll_below_guessing" in compared[TASK]) == (size is not None)
        if not takes_part:
            assert verdict.sentence == f"Not judged: the full-precision run is not clearly above guessing on {TASK}."
            assert f"(NLL {mean_nll:.3f} nats a token, guessing {math.log(size):.3f})" in verdict.excluded[TASK]


def test_the_correlation_is_pearson_s_over_tokens(rows):
    correlation = compare(*(text_units(side, MADE_FROM) for side in rows), METRIC)[TASK]["token_nll_correlation"]
    before, after = (side["logprob"].to_numpy().astype(np.float64) for side in rows)
    assert correlation.value == pytest.approx(np.corrcoef(before, after)[0, 1])
    assert correlation.ci_low < correlation.value < correlation.ci_high <= 1


def test_models_with_other_tokenizers_are_compared_in_bits_per_byte_alone(rows):
    documents = np.repeat(np.arange(N), 4).tolist()
    other = token_rows(documents, [0] * len(documents), [-1.0] * len(documents))
    values = compare(text_units(rows[0], MADE_FROM), text_units(other, MADE_FROM), METRIC)[TASK]
    assert {name for name in values if not name.startswith("questions_")} == {"bits_per_byte"}
    assert values["bits_per_byte"].quantized == pytest.approx(1 / 3 / math.log(2))
    verdict = judge({TASK: values}, MARGINS, METRIC)
    assert (verdict.verdict, verdict.settles) == ("not judged", "")
    assert verdict.sentence == "Not judged: nothing that has a margin was compared."
    assert "other tokenizers: bits per byte alone are compared" in verdict.tasks[TASK].sentence
    with pytest.raises(UserError, match=r"the targets differ.* another tokenizer cut its windows"):
        windows = [token_rows([0] * n, [0] * n) for n in (4, 5)]
        compare(*(text_units(side, MADE_FROM) for side in windows), METRIC)


def test_texts_of_logs_which_do_not_count_tokens_have_numbers_of_words_and_bytes_alone():
    sides = [[page(i, logprob) for i in range(N)] for logprob in (-10.0, -12.0)]
    values = measure(sides[0], METRIC)["pages"]
    assert {name: of_metric.value for name, of_metric in values.items()} == pytest.approx(
        {"word_perplexity": math.exp(10 / 4), "byte_perplexity": math.exp(10 / 20), "bits_per_byte": 10 / 20 / math.log(2)}
    )
    compared = compare(*sides, METRIC)
    assert compared["pages"]["bits_per_byte"].value == pytest.approx(2 / 20 / math.log(2))
    assert "nll" not in compared["pages"]
    counted = [replace(row, choice_tokens=[5], token_logprobs=[[-2.0] * 5]) for row in sides[0]]
    for pair in ((counted, sides[1]), (sides[1], counted)):  # a run of our own beside a log
        assert compare(*pair, METRIC)["pages"].keys() == compared["pages"].keys()
    assert "does not count tokens" in judge(compared, MARGINS, METRIC).tasks["pages"].sentence


def page(i: int, logprob: float) -> Record:
    counts = {"words": 4, "bytes": 20, "choice_tokens": None, "token_logprobs": None}
    return replace(record([logprob], doc_id=i, task="pages", choices=["a page"]), **counts)


def test_a_text_that_was_cut_otherwise_is_not_compared(rows):
    otherwise = {TASK: {"text": MADE_FROM[TASK]["text"] | {"window": 9}}}
    with pytest.raises(UserError, match=r"the settings text\.\* that cut it"):
        compare(text_units(rows[0], MADE_FROM), text_units(rows[1], otherwise), METRIC)


def test_equal_models_have_a_ratio_of_exactly_one(rows):
    units = text_units(rows[0], MADE_FROM)
    values = compare(units, units, METRIC)[TASK]
    assert values["perplexity_ratio"].value == 1
    assert values["token_nll_correlation"].value == pytest.approx(1)
