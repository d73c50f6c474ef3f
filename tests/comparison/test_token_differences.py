"""Fidelity of two models on a text's tokens, by documents, and only where the divergence is between those two models."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bitsure.comparison import compare
from bitsure.records.record import to_table
from bitsure.records.text_tokens import TEXT_SCHEMA
from bitsure.records.text_units import text_units, with_units
from tests.builders.records import record
from tests.builders.settings import METRIC
from tests.builders.texts import TASK, token_rows

N = 40  # documents of 20 tokens
FULL = {"model": "m", "weights": None, "dtype": "float32", "text": {"sha256": "a", "window": 8}}
QUANTIZED = FULL | {"weights": {"quant": "rtn4"}}


def rows(seed: int, is_full: bool) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = 20 * N
    table = token_rows(np.repeat(np.arange(N), 20).tolist(), [0] * n, np.log(rng.uniform(0.05, 0.95, n)).tolist())
    columns = {
        "top_token": rng.choice([10, 11], n),
        "top_prob": rng.uniform(0.05, 0.999, n),
        "kl_divergence": pa.nulls(n) if is_full else rng.exponential(0.01, n),
    }
    for name, values in columns.items():
        table = table.set_column(TEXT_SCHEMA.get_field_index(name), name, pa.array(values))
    return table.cast(TEXT_SCHEMA)


def units(seed: int, made_from: dict, is_full: bool = False) -> pa.Table:
    return text_units(rows(seed, is_full), {TASK: made_from})


@pytest.fixture(scope="module")
def values():
    return compare(units(0, FULL, is_full=True), units(1, QUANTIZED), METRIC)[TASK]


def test_the_contract_s_names_have_the_numbers_of_the_rows(values):
    before, after = rows(0, is_full=True), rows(1, is_full=False)
    kl = after["kl_divergence"].to_numpy()
    change = np.exp(after["logprob"].to_numpy().astype(float)) - np.exp(before["logprob"].to_numpy().astype(float))
    expected = {
        "kl_divergence": kl.mean(),
        "kl_divergence_median": np.median(kl),
        "kl_divergence_p99": np.percentile(kl, 99),
        "kl_divergence_max": kl.max(),
        "true_token_prob_change": change.mean(),
        "true_token_prob_change_rms": np.sqrt((change**2).mean()),
        "same_top_token": (before["top_token"].to_numpy() == after["top_token"].to_numpy()).mean(),
    }
    assert {name: values[name].value for name in expected} == pytest.approx(expected)
    divergence = values["kl_divergence"]
    assert (divergence.n, divergence.n_clusters) == (20 * N, N)
    assert divergence.resampled.endswith(f"documents ({N})")
    assert divergence.token_standard_error == pytest.approx(kl.std() / np.sqrt(len(kl)))
    assert divergence.ci_low < divergence.value < divergence.ci_high
    assert values["next_token/accuracy"].quantized == (after["top_token"].to_numpy() == after["token"].to_numpy()).mean()


def test_a_divergence_from_another_model_is_not_given():
    of_bfloat16 = units(0, FULL | {"dtype": "bfloat16"}, is_full=True)
    values = compare(of_bfloat16, units(1, QUANTIZED), METRIC)[TASK]
    assert "kl_divergence" not in values
    assert "next_token/nll" in values
    assert "kl_divergence" not in compare(units(0, QUANTIZED), units(1, QUANTIZED), METRIC)[TASK]


def test_noise_is_the_null_of_the_slope_where_it_is_as_large(values):
    full, quantized = units(0, FULL, is_full=True), units(1, QUANTIZED)
    noisy = [units(seed, QUANTIZED | {"weights": seed}) for seed in range(2, 8)]
    with_noise = compare(full, quantized, METRIC, noisy=noisy)[TASK]
    ranges = {name for name in with_noise if name.startswith("noise_control/")}
    assert {"noise_control/kl_divergence", "noise_control/harm_slope", "noise_control/same_top_token"} <= ranges
    assert with_noise["harm_slope"].test == "noise control of 6 seeds"
    assert values["harm_slope"].test is None
    unknown = compare(full, quantized, METRIC, noisy=[units(3, FULL, is_full=True)])[TASK]
    assert "noise_control/nll" in unknown
    assert "noise_control/kl_divergence" not in unknown


def test_questions_beside_a_text_stay_as_they_were():
    questions = to_table([record(np.log([0.2 + i / 100, 0.8 - i / 100]), i % 2, doc_id=i) for i in range(40)])
    together = with_units(questions, units(0, FULL, is_full=True))
    alone, both = (compare(side, side, METRIC) for side in (questions, together))
    assert both[TASK]["next_token/accuracy"].value == 0
    assert {name: of.value for name, of in both["t"].items()} == {name: of.value for name, of in alone["t"].items()}
