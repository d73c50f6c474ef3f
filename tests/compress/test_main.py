from __future__ import annotations

import json

import pytest

from bitsure.compress import __main__ as command
from bitsure.metrics.names import MACRO


@pytest.fixture
def run(tmp_path):
    """Writes what a run leaves of a quantizer."""

    def write(quantizer: str, coded: float, confidence: float, model: str = "m", **proof):
        folder = tmp_path / f"{model}-{quantizer}"
        folder.mkdir()
        number = {"value": confidence, "ci_low": confidence - 0.1, "ci_high": confidence + 0.1, "n": 4}
        values = dict.fromkeys(command.SURE, number)
        made = {"quantizer": quantizer, "bits_per_weight": coded + 1, "bits_per_weight_coded": coded}
        made |= {"code_entropy": coded - 0.25, "load_seconds": coded / 1000} | proof
        for name, content in {
            "quantization": {key: value for key, value in made.items() if value is not None},
            "metrics": {MACRO: values, "pets": values},
            "provenance": {"model": {"name": model}},
        }.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return str(folder)

    return write


def test_a_row_a_run_and_an_answer_for_each_model(run, capsys):
    command.main([run("a", 3.5, 0.7), run("b", 1.5, 0.6), run("c", 2.5, 0.5), run("d", 3, 0.4, "other")])
    head, ruler, *rows, empty, said = capsys.readouterr().out.splitlines()
    assert head.count("|") == ruler.count("|") == len(command.COLUMNS) + 1 and empty == ""
    assert [row.split(" | ")[1] for row in rows] == ["b", "c", "a", "d"]  # by model, the cheapest first
    assert rows[0].startswith("| m | b | 2.50 | 1.50 | 1.25 | 1.5 ms | 0.600 [0.500, 0.700] |")
    assert said == (
        "m: the cheapest to load is b, 1.50 bits a weight after coding; the least sure is c (confidence 0.500 [0.400, 0.600]); "
        "the least sure of the right answer is c (true-label prob. 0.500 [0.400, 0.600])."
    )


def test_the_cheapest_may_be_the_least_sure(run, capsys):
    command.main([run("a", 3.5, 0.7), run("b", 1.5, 0.6), "--task", "pets"])
    assert "the least sure is b (confidence 0.600" in capsys.readouterr().out


def test_what_cannot_be_shown_is_said(run, tmp_path):
    with pytest.raises(SystemExit, match=r"no codes of noise's weights were measured .* Leave this run out"):
        command.main([run("noise", 3.5, 0.7, bits_per_weight_coded=None)])
    with pytest.raises(SystemExit, match=r"arc has no confidence to show, or was not asked; --task may be macro_average, pets"):
        command.main([run("a", 3.5, 0.7), "--task", "arc"])
    with pytest.raises(SystemExit, match=r"is no finished run of a quantized model: it has no quantization.json"):
        command.main([str(tmp_path / "nowhere")])
