"""Where two models' answers part, against its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from bitsure.comparison import compare, judge
from bitsure.metrics.answer_positions import position_metrics
from bitsure.metrics.divergence import AnswerDivergence, TokensAtRisk, token_divergence_metrics
from bitsure.metrics.fidelity import TokenPairs
from bitsure.metrics.next_token import ScoredTokens
from bitsure.records.answer_units import answer_units
from bitsure.report.divergence_section import divergence_lines, divergence_sentences
from bitsure.results import Difference
from tests.builders.settings import MARGINS, METRIC
from tests.builders.written import written

SETTINGS = replace(METRIC, resamples=100)


def parts(full, quantized, **changes) -> AnswerDivergence:
    """Answers of tokens, whose margins are 0.1, 0.2, … and whose probabilities are a half and a quarter."""
    same = np.ones(len(full))
    return AnswerDivergence(
        full=[np.array(tokens) for tokens in full],
        quantized=[np.array(tokens) for tokens in quantized],
        margins=[0.1 * (np.arange(len(tokens)) + 1) for tokens in full],
        logprobs=tuple([np.full(len(tokens), np.log(p)) for tokens in side] for side, p in ((full, 0.5), (quantized, 0.25))),
        **{"same_text": same, "same_answer": same, "nothing": 0 * same} | changes,
    )


def test_models_part_at_the_first_token_that_differs_and_later_ones_do_not_count():
    divergence = parts([[1, 2, 3, 4], [5, 6], [7, 8]], [[1, 2, 9, 4], [5, 6], [9, 8, 7]])
    assert divergence.position.tolist() == [2, 2, 0] and divergence.diverged.tolist() == [1, 0, 1]
    assert divergence.margin.tolist() == pytest.approx([0.3, 0, 0.1])
    assert [side.tolist() for side in divergence.probabilities] == [
        pytest.approx([0.5, 0, 0.5]),
        pytest.approx([0.25, 0, 0.25]),
    ]
    at_risk = divergence.at_risk
    assert at_risk.answer.tolist() == [0, 0, 0, 1, 1, 2] and at_risk.diverged.tolist() == [0, 0, 1, 0, 0, 1]
    assert at_risk.margin.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.1, 0.2, 0.1])


def test_an_answer_that_ends_before_it_differs_has_not_parted():
    divergence = parts([[1, 2]], [[1, 2, 3]])
    assert divergence.diverged.tolist() == [0] and divergence.at_risk.diverged.tolist() == [0, 0]


def test_the_auroc_of_the_margin_is_that_of_the_tokens_in_common_against_those_that_differ():
    rng = np.random.default_rng(0)
    margin = rng.random(200)
    tokens = TokensAtRisk(margin, (rng.random(200) > margin).astype(float), np.arange(200))
    metrics = token_divergence_metrics(tokens)
    assert metrics["divergence/auroc"].value(tokens) == pytest.approx(roc_auc_score(1 - tokens.diverged, margin))
    inside = (margin >= 0.3) & (margin < 0.4)
    of_bin = metrics["divergence/per_token_30_to_40_percent"]
    assert of_bin.value(tokens) == pytest.approx(tokens.diverged[inside].mean()) and of_bin.count(tokens) == inside.sum()


@pytest.mark.parametrize(("parted", "interval"), [(29, "never"), (30, "influence")])
def test_the_auroc_of_few_answers_that_part_has_no_interval(parted, interval):
    tokens = TokensAtRisk(np.linspace(0, 1, 200), np.array([1.0] * parted + [0.0] * (200 - parted)), np.arange(200))
    assert token_divergence_metrics(tokens)["divergence/auroc"].interval == interval


def test_a_sentence_says_why_few_answers_that_part_decide_nothing():
    before, after = (written(["fox"] * 40, [True] * 40, [[-p]] * 40) for p in (0.1, 0.2))
    values = compare(answer_units(before), answer_units(after), SETTINGS)
    values["free"]["divergence/auroc"] = Difference(value=0.8, ci_low=None, ci_high=None, n=40)
    [line] = divergence_lines(values)
    assert "Too few part to say whether they do where full precision is unsure (AUROC of its margin 0.800, without an" in line


def test_every_answer_is_the_same_or_in_other_words_or_another_one():
    texts, logprobs = ["fox", "fox", "cat", "dog"] * 10, [[-0.1, -0.2]] * 40
    before = written(texts, [True] * 40, logprobs)
    after = written(["fox", "fox", "cat", "cow"] * 10, [True] * 40, logprobs)
    wording = after.set_column(
        after.schema.get_field_index("text"),
        "text",
        [[f"{text}, I say." for text in texts[:20]] + after["text"].to_pylist()[20:]],
    )
    values = compare(answer_units(before), answer_units(wording), SETTINGS)["free"]
    shares = [values[name].value for name in ("divergence/identical", "divergence/other_wording", "flip_rate")]
    assert shares == [0.375, 0.375, 0.25] and values["divergence/auroc"].value is None  # the tokens are all the same
    assert values["divergence/per_token"].n == 80 and values["divergence/position"].n == 0


def test_two_answers_in_which_the_harness_finds_nothing_are_not_the_same_answer():
    before, after = (answer_units(written(["[invalid]"] * 40, [False] * 40, [[-p]] * 40)) for p in (0.1, 0.2))
    after = after.set_column(after.schema.get_field_index("answer"), "answer", [["other"] * 40])
    values = compare(before, after, SETTINGS)
    assert values["free"]["divergence/other_wording"].value == 0 and values["free"]["divergence/nothing_judged"].value == 1
    [line] = divergence_lines(values)
    assert "It finds nothing to judge in 100.0%" in line


def test_fidelity_along_an_answer_is_by_places_that_double():
    n = 20
    tokens = ScoredTokens(np.full(n, -1.0), np.zeros(n), np.full(n, 0.5), np.ones(n))
    pairs = TokenPairs(tokens, tokens, np.arange(n, dtype=float))
    values = {name: metric.value(pairs) for name, metric in position_metrics(np.tile(np.arange(10), 2)).items()}
    assert values["kl_divergence_from_token_1"] == np.mean([0, 10]) and values["kl_divergence_from_token_8"] == np.mean(
        [7, 8, 9, 17, 18, 19]
    )
    assert values["true_token_prob_change_from_token_4"] == 0 and "kl_divergence_from_token_16" not in values


def test_a_text_that_full_precision_wrote_is_not_judged():
    comparison = compare(*(answer_units(written(["a"] * 40, [True] * 40, [[-p]] * 40)) for p in (0.1, 0.9)), SETTINGS)
    verdict = judge(comparison | {"text/free/written": comparison["free"]}, MARGINS, SETTINGS)
    assert verdict.tasks["text/free/written"].verdict == "not judged" and verdict.verdict == "inferior"


def test_models_with_other_vocabularies_are_compared_by_their_texts():
    before, after = (written([text] * 40, [True] * 40, [[-0.1]] * 40) for text in ("4", "four"))
    other = after.set_column(after.schema.get_field_index("tokenizer"), "tokenizer", pa.array(["other"] * 40))
    values = compare(answer_units(before), answer_units(other), SETTINGS)
    assert {name for name in values["free"] if name.startswith("divergence/")} == {
        "divergence/identical",
        "divergence/other_wording",
        "divergence/nothing_judged",
    }
    [line] = divergence_sentences(values)
    assert line.startswith("free: 0.0% [0.0%, 8.8%] of 40 answers are full precision's, word for word.")
    assert "in other words in 0.0% [0.0%, 8.8%] and another in 100.0%" in line
