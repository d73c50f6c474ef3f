from __future__ import annotations

import shutil

import pytest

from bitsure.base.errors import UserError
from bitsure.report import compress_command
from bitsure.results import Measurement, write
from tests.builders.result_files import model_origin, provenance, quantization

MACRO = "macro_average"


@pytest.fixture
def run(tmp_path):
    """Writes the result files of a finished run of a quantizer."""

    def finished_run(quantizer: str, coded: float, confidence: float, model: str = "m", **fields):
        folder = tmp_path / f"{model}-{quantizer}"
        folder.mkdir()
        number = Measurement(value=confidence, ci_low=confidence - 0.1, ci_high=confidence + 0.1, n=4)
        numbers = dict.fromkeys(compress_command.SURENESS, number)
        sizes = {"bits_per_weight": coded + 1, "bits_per_weight_coded": coded, "coded_with": "range_coder"}
        sizes |= {"code_entropy": coded - 0.25, "load_seconds": coded / 1000} | fields
        write(folder / "quantization.json", quantization(quantizer=quantizer, **sizes))
        write(folder / "metrics.json", {MACRO: numbers, "pets": numbers})
        write(folder / "provenance.json", provenance(model=model_origin(model)))
        return folder

    return finished_run


def test_a_row_a_run_and_an_answer_for_each_model(run, capsys):
    compress_command.report_compressibility(
        [run("a", 3.5, 0.7), run("b", 1.5, 0.6), run("c", 2.5, 0.5), run("d", 3, 0.4, "other")]
    )
    head, ruler, *rows, empty, answer = capsys.readouterr().out.splitlines()
    assert head.count("|") == ruler.count("|") == len(compress_command.COLUMNS) + 1 and empty == ""
    assert [row.split(" | ")[1] for row in rows] == ["b", "c", "a", "d"]  # by model, the cheapest first
    assert rows[0].startswith("| m | b | 2.50 | 1.50 | 1.25 | 1.5 ms | 0.600 [0.500, 0.700] |")
    assert answer == (
        "m: the cheapest to load is b, 1.50 bits a weight after coding; the least sure is c (confidence 0.500 [0.400, 0.600]); "
        "the least sure of the right answer is c (true-label prob. 0.500 [0.400, 0.600])."
    )


def test_the_cheapest_may_be_the_least_sure(run, capsys):
    compress_command.report_compressibility([run("a", 3.5, 0.7), run("b", 1.5, 0.6)], "pets")
    assert "the least sure is b (confidence 0.600" in capsys.readouterr().out


def test_a_run_without_codes_or_without_the_task_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"no codes of noise's weights were measured\. Run it again with"):
        compress_command.report_compressibility([run("noise", 3.5, 0.7, bits_per_weight_coded=None)])
    with pytest.raises(UserError, match=r"arc has no confidence to show, or was not asked; --task may be macro_average, pets"):
        compress_command.report_compressibility([run("a", 3.5, 0.7)], "arc")
    with pytest.raises(UserError, match=r"is no finished run of a quantized model: it has no quantization.json"):
        compress_command.report_compressibility([tmp_path / "nowhere"])


def test_copies_and_sweeps_are_refused_and_equals_are_both_named(run, tmp_path, capsys):
    first = run("a", 3.5, 0.7)
    copied = shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(UserError, match=f"{copied} has the same results as {first}: name each run once"):
        compress_command.report_compressibility([first, copied])
    with pytest.raises(UserError, match=r"is a sweep's directory, .* its runs are the folders in it"):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "plan.json").write_text("{}")
        compress_command.report_compressibility([tmp_path / "sweep"])
    compress_command.report_compressibility([first, run("b", 3.5, 0.7)])
    assert "the cheapest to load are a and b" in capsys.readouterr().out
