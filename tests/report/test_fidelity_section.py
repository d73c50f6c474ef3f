"""What the page and the terminal say of a text's next-token probabilities."""

from __future__ import annotations

import pytest

from bitsure.report.fidelity_charts import fidelity_chart
from bitsure.report.fidelity_section import fidelity_section
from bitsure.results import Difference

TEXT, CHOICES = "text/wikitext2/gptq", "piqa"


def number(value, low=None, high=None, n=4064, **fields) -> Difference:
    return Difference(value=value, ci_low=low, ci_high=high, n=n, **fields)


@pytest.fixture
def comparison():
    values = {
        "kl_divergence": number(0.0219, 0.0189, 0.0255, token_standard_error=0.0013),
        "kl_divergence_max": number(1.25),
        "kl_divergence_median": number(0.0102, 0.0095, 0.011),
        "true_token_prob_change": number(-0.0005, -0.001, 0.0001),
        "true_token_prob_change_rms": number(0.03, 0.02, 0.04),
        "same_top_token": number(0.908, 0.897, 0.918),
        "perplexity_ratio": number(1.05, 1.02, 1.08, n=32),
    }
    for k in (0, 5, 9):
        values[f"kl_divergence_{10 * k}_to_{10 * k + 10}_percent"] = number(0.1 / (k + 1), 0.001, 0.2, n=40)
        values[f"true_token_prob_change_{10 * k}_to_{10 * k + 10}_percent"] = number(0.0, -0.1, 0.1, n=40)
    return {CHOICES: {"kl_divergence": number(0.5)}, TEXT: values}


def test_a_text_has_a_sentence_and_its_percentiles(comparison):
    section = fidelity_section(comparison)
    assert section.sentences == [
        "text/wikitext2/gptq: mean KL divergence 0.0219 [0.0189, 0.0255] nats over 4,064 tokens (± 0.0013 if tokens were "
        "independent, as llama-perplexity prints it); the same most likely token at 90.80% [89.70%, 91.80%] of them; "
        "perplexity times 1.0500 [1.0200, 1.0800]."
    ]
    rows = {row[1]: row[2:] for row in section.rows}
    assert {row[0] for row in section.rows} == {TEXT}
    assert rows["mean"] == ("0.0219 [0.0189, 0.0255]", "-0.0005 [-0.001, +0.0001]")
    assert rows["root mean square"] == ("", "0.03 [0.02, 0.04]")
    assert rows["maximum"] == ("1.25", "")
    assert rows["median"][0] == "0.0102 [0.0095, 0.011]"
    assert list(rows)[-1] == "minimum"


def test_a_small_divergence_has_digits(comparison):
    comparison[TEXT]["kl_divergence"] = number(4.213e-5, 3.9e-5, 4.6e-5, token_standard_error=1.1e-6)
    [sentence] = fidelity_section(comparison).sentences
    assert "mean KL divergence 4.21e-05 [3.9e-05, 4.6e-05] nats over 4,064 tokens (± 1.1e-06 if tokens were" in sentence


def test_tasks_with_choices_have_no_such_section(comparison):
    assert fidelity_section({CHOICES: comparison[CHOICES]}) is None
    assert fidelity_section(None) is None


def test_the_chart_goes_from_the_least_to_the_most_confident_tokens(comparison):
    chart = fidelity_chart(TEXT, comparison[TEXT])
    assert "0.1 [0.001, 0.2] nats where full precision gives its most likely token 0–10%" in chart.finding
    assert "<svg" in chart.svg
    assert fidelity_chart(TEXT, {"kl_divergence": number(0.1)}) is None
