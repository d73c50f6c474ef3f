"""The contrasts in sentences."""

from __future__ import annotations

from types import SimpleNamespace

from bitsure.sweep.report.contrast_words import quantizer_sentences, why_no_contrasts
from bitsure.sweep.report.contrasts import QUANTIZERS, Contrasts, RunContrast


def run(label: str, conditions: str = "") -> SimpleNamespace:
    return SimpleNamespace(model="m", label=label, quantizer_label=label, conditions=conditions)


def contrast(first: str, second: str, task: str, value: float, p_adjusted: float | None, draws: int = 1) -> RunContrast:
    numbers = {"n": 100, "ci_low": value - 0.01, "ci_high": value + 0.01, "standard_error": 0.005, "calib_seed": None}
    tested = {"p_value": p_adjusted, "p_adjusted": p_adjusted}
    runs = {"first": run(first), "second": run(second)}
    return RunContrast(
        kind=QUANTIZERS, metric="true_label_prob", task=task, value=value, draws=draws, **runs, **numbers, **tested
    )


def test_a_sentence_says_who_loses_more_where_and_where_that_is_not_shown():
    contrasts = [
        contrast("gptq3", "rtn3", "unclear", -0.002, 0.4),
        contrast("gptq3", "rtn3", "recall", -0.03, 1e-4),
        contrast("gptq3", "rtn3", "stories", 0.02, 0.001),
        contrast("a", "b", "t", 0.001, 0.9),
        contrast("c", "d", "t", -0.04, None, draws=5),
    ]
    assert quantizer_sentences(Contrasts([], contrasts, []), 0.05) == [
        "m: rtn3 loses more than gptq3, by 0.0300 on recall; gptq3 loses more than rtn3, by 0.0200 on stories; "
        "no difference is shown on unclear.",
        "m: no difference between a and b is shown on t.",
        "m: d less c over 5 calibration seeds: -0.0400 [-0.0500, -0.0300] on t.",
    ]


def test_what_cannot_be_contrasted_is_said_with_its_reason():
    nothing = Contrasts([], [], [])
    prompts = [run("q", f"task.num_fewshot={k}") for k in (0, 3)]
    assert "they differ in task.num_fewshot=0 and task.num_fewshot=3" in why_no_contrasts(nothing, prompts)
    assert "two models under one quantizer" in why_no_contrasts(nothing, [run("q"), run("other")])
    assert why_no_contrasts(nothing, [run("q")]) == ""
