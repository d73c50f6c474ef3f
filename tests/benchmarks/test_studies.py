"""The tables of the studies' grids: one row a setting, blanks for what was not run, changes on the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import studies
from benchmarks.regions import REGION
from benchmarks.text_contrast import TOKENS, ln_perplexity
from bitsure.base.errors import UserError
from bitsure.results.measurement import Measurement
from bitsure.sweep.report.cell_results import CellResult

TEXT = "text/own/gptq"


def cell(folder: Path, loss: float, quant: dict, documents: int = 20, state: str = "done") -> CellResult:
    folder.mkdir()
    rng = np.random.default_rng(0)
    tokens = pd.DataFrame({name: np.arange(30 * documents) for name in TOKENS})
    tokens["task"], tokens["document"] = TEXT, np.repeat(np.arange(documents), 30)
    tokens["logprob"] = (rng.normal(-2, 1, len(tokens)) - loss + rng.normal(0, 0.1, len(tokens)) * bool(loss)).astype("float32")
    tokens.to_parquet(folder / "texts.parquet")
    text = {TEXT: {"perplexity": Measurement(value=9.5, ci_low=9.0, ci_high=10.0, n=20)}}
    config = {
        "quant": {"format": "int", "transforms": [], "activations": {"bits": 8}, "tuning": None, "expansion": None} | quant,
        "text": {"limit": 8192, "window": None},
        "calib": {"name": "own", "nsamples": 8, "seqlen": 64},
    }
    about = {"name": folder.name, "path": folder.name, "started": None, "model_name": "m", "label": folder.name, "error": None}
    return CellResult(folder, state=state, config=config, model=None, quantization=None, metrics=text, baseline=text, **about)


def test_the_grid_of_methods_and_number_formats(tmp_path):
    gptq, smooth = {"damp_percent": 0.01}, {"transforms": ["smooth"]}
    cells = [
        cell(tmp_path / "a", 0.2, {}),
        cell(tmp_path / "b", 0.1, gptq),
        cell(tmp_path / "c", 0.1, smooth | gptq),
        cell(tmp_path / "d", 0.0, smooth | gptq | {"format": "mxint4"}),
        cell(tmp_path / "e", 0.0, smooth, state="failed"),
    ]
    lines = studies.mx(cells)["mx"]
    assert lines[0].startswith(
        "4 of 5 cells: m (`text/own/gptq`, the first 8,192 tokens; calibrated on 8 × 64 tokens of `own`)"
    )
    level, rest = "9.50 [9.00, 10.00]", [line for line in lines if line.startswith("| m |")]
    assert rest[0] == f"| m | {level} | W4A8 | fixed point | {level} |  | {level} | {level} |"
    assert rest[1] == f"| m | {level} | W4A8 | MXINT |  |  |  | {level} |"
    assert rest[2].startswith("| m | W4A8 | fixed point |  | -0.1") and rest[2].endswith("|  |")
    assert rest[3].startswith("| m | W4A8 | MXINT |") and rest[3].count("[") == 1


def test_the_ablation_has_a_row_for_each_number_of_copies(tmp_path):
    apart = {"transforms": ["disassemble"], "expansion": 0.01}
    cells = [
        cell(tmp_path / "a", 0.2, {}),
        cell(tmp_path / "b", 0.1, apart),
        cell(tmp_path / "c", 0.1, {"transforms": ["reassemble"], "tuning": {"rank": 4}}),
    ]
    rows = [line for line in studies.qllm(cells)["ablation"] if line.startswith("| m |")]
    assert rows[1].startswith("| m | 9.50 [9.00, 10.00] | ✓ |  | 0.01 | 9.50 [9.00, 10.00] |  | -0.")
    assert rows[2].startswith("| m | 9.50 [9.00, 10.00] | ✓ | ✓ | searched |  | 9.50")


def test_a_change_of_perplexity_is_of_the_same_tokens(tmp_path):
    first, second = cell(tmp_path / "a", 0.2, {}), cell(tmp_path / "b", 0.0, {})
    change = ln_perplexity(first, second)
    assert change.ci_low < 0.2 < change.ci_high and change.value == pytest.approx(0.2, abs=0.01)
    assert ln_perplexity(second, first).value == pytest.approx(-change.value)
    with pytest.raises(UserError, match="scored other tokens"):
        ln_perplexity(first, cell(tmp_path / "c", 0.0, {}, documents=19))


def test_the_pages_have_a_place_for_each_table():
    regions = {name for page, _ in studies.STUDIES.values() for _, name, _ in REGION.findall(page.read_text())}
    assert {"mx", "ablation", "mao"} <= regions


def test_a_perplexity_has_the_digits_that_are_of_use():
    def of(value: float) -> str:
        return studies.perplexity_cell(Measurement(value=value, ci_low=value / 2, ci_high=2 * value, n=3))

    assert of(9.5) == "9.50 [4.75, 19.00]"
    assert of(2970.29) == "2,970 [1,485, 5,941]"
    assert of(63885087.76) == "6.4e+07 [3.2e+07, 1.3e+08]"
