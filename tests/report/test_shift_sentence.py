"""How the right answer shifted, in words: which way, where full precision was unsure and where it was sure, beside noise."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.comparison import compare
from bitsure.report.shift_sentence import shift_sentence
from tests.builders.answers import two_choices
from tests.builders.settings import METRIC

CONFIDENCE = np.repeat([0.55, 0.75, 0.95], 40)


def run(log_odds):
    """Return the records of a model whose log-odds of the right answer are so much higher than CONFIDENCE's."""
    p = 1 / (1 + np.exp(-np.log(CONFIDENCE / (1 - CONFIDENCE)) - log_odds))
    return [two_choices(x, 0, i) for i, x in enumerate(p)]


@pytest.mark.parametrize(("sign", "word"), [(-1, "falls (-"), (1, "rises (+")])
def test_the_direction_is_in_words_for_probabilities_and_log_odds(sign, word):
    change = sign * np.tile([0.11, 0.13], 60)
    sentence = shift_sentence("t", compare(run(0), run(change), METRIC)["t"])
    assert sentence.startswith(f"t: the right answer's probability {word}0.0")
    assert "50–60% sure (40 questions)" in sentence and "90–100% sure (40)" in sentence
    assert sentence.count(word) == 4 and sentence.count(f"{word}0.12") == 2  # nats
    assert sentence.count(f" [{word[-1]}0.") == 4  # the intervals have the sign of the change
    assert "above" not in sentence and "hit" not in sentence and "Noise" not in sentence


def test_what_may_be_chance_is_not_called_a_change():
    change = np.random.default_rng(0).normal(0, 0.5, 120)
    sentence = shift_sentence("t", compare(run(0), run(change), METRIC)["t"])
    assert sentence.count("is not shown to change (") >= 2 and "log-odds" in sentence


def test_noise_has_its_range_and_says_if_it_is_no_control():
    spread = np.tile([0.3, -0.5], 60)
    noisy = [run(spread * scale) for scale in (0.95, 1.05)]
    sentence = shift_sentence("t", compare(run(0), run(spread), METRIC, noisy=noisy)["t"])
    assert "the log-odds by -0.1050 to -0.0950 and -0.1050 to -0.0950 nats." in sentence and "no control" not in sentence
    small = [run(spread * scale) for scale in (0.1, 0.2)]
    assert "It is no control, for its mean KL is" in shift_sentence("t", compare(run(0), run(spread), METRIC, noisy=small)["t"])


def test_bins_of_few_questions_say_nothing():
    full, quantized = ([two_choices(p, 0, i) for i in range(40)] for p in (0.65, 0.6))
    assert (
        shift_sentence("t", compare(full, quantized, METRIC)["t"]) == "t: fewer than two bins of confidence hold 30 questions."
    )
