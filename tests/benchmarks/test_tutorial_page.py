"""The figures of docs/tutorial.md come from a sweep's cells."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import tutorial_page
from benchmarks.regions import fill
from bitsure.base.errors import UserError
from bitsure.comparison import compare, judge
from bitsure.records.parquet import write_records
from bitsure.results import write
from tests.builders.answers import paired_runs
from tests.builders.settings import MARGINS, METRIC
from tests.builders.sweeps import write_quantized


def test_the_page_has_each_cells_verdict_and_changes_and_the_levels_of_full_precision(tmp_path):
    full, quantized, _ = paired_runs(30)
    few = replace(METRIC, resamples=100)
    verdict = judge(compare(full, quantized, few), MARGINS, few)
    for quantizer in ("rtn4", "rtn8"):
        cell = write_quantized(tmp_path, quantizer, lost=9, questions=60)
        write_records(cell / "baseline.parquet", full, {})
        write(cell / "verdict.json", verdict)
    regions = tutorial_page.regions(tmp_path)
    assert regions["verdict"][1] == f"Verdict: {verdict.verdict}" and "weights: " in regions["verdict"][-2]
    cells = {name: [line.strip("| ").split(" | ") for line in regions[name][2:]] for name in ("cells", "changes", "levels")}
    assert [(row[1], row[2], row[-1]) for row in cells["cells"]] == [(f"rtn{n}", f"{n}.00", verdict.verdict) for n in (4, 8)]
    assert [row[1:3] for row in cells["changes"]] == [["t", "rtn4"], ["t", "rtn8"]]
    assert cells["changes"][0][3].startswith("-0.150 [")  # 9 of 60
    assert cells["levels"] == [["m", "t", "1", *2 * cells["levels"][0][3:6]]]  # choices of a token each: both are the same
    assert fill(tutorial_page.PAGE.read_text(encoding="utf-8"), regions)  # the page has a place for each


def test_a_sweep_that_is_not_done_is_refused(tmp_path):
    cell = write_quantized(tmp_path, "rtn4", lost=9, questions=60)
    status = cell / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "failed"}))
    with pytest.raises(UserError, match=r"1 cells are not done, such as rtn4\. Run the sweep again first"):
        tutorial_page.regions(tmp_path)
