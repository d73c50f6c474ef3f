"""A sweep's headline numbers in terminals of every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bitsure.sweep.report.sweep_terminal import COLUMNS, headline_tables
from tests.builders.study_rows import study_row

LONG = "smooth+gptq-mxfp4-amxfp4, quant.damp_percent=0.01"


def shown(width: int, labels: tuple[str, ...], **changed: str) -> str:
    """What a terminal shows of full precision and two quantizers of one model."""
    quantizers = [{"quantizer": "none", "quantizer_label": "full precision", "delta": None, "seed": None}]
    quantizers += [{"quantizer_label": label} for label in labels]
    rows = [
        study_row("runs/one/final", metric=metric, **{**quantizer, **changed, "conditions": conditions})
        for metric in COLUMNS
        for quantizer in quantizers
        for conditions in changed.get("conditions", "").split("|")
    ]
    out = io.StringIO()
    for table in headline_tables(rows, width):
        Console(file=out, width=width).print(table)
    return out.getvalue()


@pytest.mark.parametrize(("width", "metrics"), [(60, 2), (80, 4), (120, 4)])
def test_no_word_and_no_number_is_cut(width, metrics):
    text = shown(width, ("w4a8kv4", "w3 group_size=32"))
    assert text.count("0.500 -0.100") == 2 * metrics and text.count("0.500 ") == 3 * metrics and "…" not in text
    for words in ("runs/one/final", "  full precision", "  w4a8kv4 ", "  w3 group_size=32", "accuracy", "true-label"):
        assert words in text, text
    assert ("confidence" in text) == ("cal. error" in text) == (metrics == 4)


def test_other_prompts_have_a_table_of_their_own_and_long_labels_are_whole():
    text = shown(80, (LONG,), conditions="task.num_fewshot=0|task.num_fewshot=3")
    titles = [line for line in text.splitlines() if "num_fewshot" in line]
    assert len(titles) == 2 and titles[0].startswith("t, task.num_fewshot=0, and its change")
    assert max(map(len, text.splitlines())) <= 80 and sum(LONG in line and "-0.100" in line for line in text.splitlines()) == 2
