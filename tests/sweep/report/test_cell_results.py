"""The cells of a sweep's directory, which may come from anywhere."""

from __future__ import annotations

import pytest

from bitsure.cli import main
from bitsure.sweep.report.cell_results import read_cells
from tests.builders.sweeps import leave_unfinished


@pytest.mark.parametrize("text", ["- a\n- list\n", "model: word\ntracking: [1]\n", "text\n", "[1", "\xff"])
def test_a_config_that_is_not_a_runs_has_no_settings(tmp_path, text):
    leave_unfinished(tmp_path, "0-a-b", state="failed", error="it fails")
    (tmp_path / "0-a-b" / "config.yaml").write_text(text, encoding="latin-1")
    [cell] = read_cells(tmp_path)
    assert cell.config == cell.settings == {} and cell.state == "damaged" and "config.yaml" in cell.error
    with pytest.raises(SystemExit, match="no cell of it was tracked"):
        main(["report", str(tmp_path), "--track"])
