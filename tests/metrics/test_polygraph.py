"""The confidences of written answers are lm-polygraph's estimators, where it has the same. It has an environment of its own."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.scoring.generation.truth_question import TRUTH_QUESTION
from tests.builders.marks import needs_polygraph
from tests.builders.written import written

RNG = np.random.default_rng(0)
N = 40
LOGPROBS = [(-RNG.exponential(0.6, RNG.integers(1, 12))).tolist() for _ in range(N)]
DRAWN = [RNG.choice(["4", "5", "7", "6"], 7).tolist() for _ in range(N)]
ANSWERS = written(["4"] * N, [True] * N, LOGPROBS, drawn=DRAWN).slice(0, N).to_pydict()


@needs_polygraph
def test_probabilities_and_entropies_are_its_estimators_with_another_sign():
    from lm_polygraph.estimators import MaximumSequenceProbability, MeanTokenEntropy, Perplexity

    of_tokens = {"greedy_log_likelihoods": LOGPROBS, "entropy": ANSWERS["entropies"]}
    assert ANSWERS["answer_logprob"] == pytest.approx(-MaximumSequenceProbability()(of_tokens))
    assert np.log(ANSWERS["token_probability"]) == pytest.approx(-Perplexity()(of_tokens))
    assert ANSWERS["token_entropy"] == pytest.approx(MeanTokenEntropy()(of_tokens))


@needs_polygraph
def test_the_entropy_of_groups_is_its_semantic_entropy_by_frequencies():
    from lm_polygraph.estimators import SemanticEntropy

    classes = [sorted(set(texts)) for texts in DRAWN]
    groups = {
        "sample_to_class": [[names.index(text) for text in texts] for names, texts in zip(classes, DRAWN, strict=True)],
        "class_to_sample": [
            [[i for i, text in enumerate(texts) if text == name] for name in names]
            for names, texts in zip(classes, DRAWN, strict=True)
        ],
    }
    stats = {"sample_texts": DRAWN, "semantic_classes_entail": groups}
    theirs = SemanticEntropy(class_probability_estimation="frequency")(stats)
    assert ANSWERS["semantic_entropy"] == pytest.approx(theirs)


@needs_polygraph
def test_the_model_is_asked_in_its_words_whether_an_answer_is_true():
    from lm_polygraph.stat_calculators.prompt import PromptCalculator

    theirs = PromptCalculator().prompt.format(q="What is 2 + 2?", a="4", s="")
    assert TRUTH_QUESTION.format(prompt="What is 2 + 2?", answer="4") == theirs
