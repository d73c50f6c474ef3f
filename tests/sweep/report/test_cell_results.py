"""The cells of a sweep's directory, which may come from anywhere."""

from __future__ import annotations

import pytest

from bitsure.cli import main
from bitsure.results import Labels, write
from bitsure.sweep.report.cell_results import read_cells
from tests.builders.result_files import provenance
from tests.builders.sweeps import leave_unfinished


@pytest.mark.parametrize("text", ["- a\n- list\n", "model: word\ntracking: [1]\n", "text\n", "[1", "\xff"])
def test_a_config_that_is_not_a_runs_has_no_settings(tmp_path, text):
    leave_unfinished(tmp_path, "0-a-b", state="failed", error="it fails")
    (tmp_path / "0-a-b" / "config.yaml").write_text(text, encoding="latin-1")
    [cell] = read_cells(tmp_path)
    assert cell.config == cell.settings == {} and cell.state == "damaged" and "config.yaml" in cell.error
    with pytest.raises(SystemExit, match="no cell of it was tracked"):
        main(["report", str(tmp_path), "--track"])


def test_a_rotation_that_is_drawn_with_each_text_is_no_setting_of_its_own(tmp_path):
    for number, (name, text, rotation) in enumerate(
        [("drawn", 0, 0), ("drawn", 1, 1), ("same", 0, 0), ("same", 1, 0), ("one", 0, 0)]
    ):
        leave_unfinished(tmp_path, f"{number}-a", state="running")
        config = f"quant: {{name: {name}, rotation: {{seed: {rotation}}}}}\ncalib: {{seed: {text}}}\n"
        (tmp_path / f"{number}-a" / "config.yaml").write_text(config, encoding="utf-8")
    seeds = [cell.settings.get("quant.rotation.seed") for cell in read_cells(tmp_path)]
    assert seeds == [None, None, 0, 0, 0]


def labelled(folder, name: str, quantizer: str, label: str, model: str = "x", path: str = "/models/x") -> None:
    """A cell of a quantizer that the command called by a label."""
    leave_unfinished(folder, name, state="running")
    config = f"model: {{name: {model}, path: {path}}}\nquant: {{name: {quantizer}}}\n"
    (folder / name / "config.yaml").write_text(config, encoding="utf-8")
    write(folder / name / "provenance.json", provenance(labels=Labels(model=model, quantizer=label)))


def test_quantizers_are_called_as_the_command_called_them_unless_that_mixes_them_up(tmp_path):
    labelled(tmp_path, "0", "rtn4-a8-kv4", "w4a8kv4")
    labelled(tmp_path, "1", "rtn3-g32", "mine")
    labelled(tmp_path, "2", "rtn3-g64", "mine")  # the file was edited in between
    leave_unfinished(tmp_path, "3", state="running")  # of an earlier version
    assert [cell.label for cell in read_cells(tmp_path)] == ["w4a8kv4", "rtn3-g32", "rtn3-g64", "gptq4"]


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path):
    labelled(tmp_path, "0", "rtn3", "rtn3", path="/models/a/x")
    labelled(tmp_path, "1", "rtn3", "rtn3", path="/models/b/x")
    labelled(tmp_path, "2", "rtn3", "rtn3", model="y", path="/models/b/y")
    assert [cell.model_name for cell in read_cells(tmp_path)] == ["a/x", "b/x", "y"]
