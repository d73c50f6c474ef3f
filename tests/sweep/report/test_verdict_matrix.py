"""What came of each cell, model × quantizer."""

from __future__ import annotations

from bitsure.sweep.report.cell_results import read_cells
from bitsure.sweep.report.verdict_matrix import MOST_COLUMNS, verdict_matrix
from tests.builders.sweeps import leave_unfinished, write_quantized


def stopped(folder, name: str, model: str, quantizer: str, seed: int = 0) -> None:
    leave_unfinished(folder, name, state="failed", error="no memory\nat all")
    config = f"model: {{name: {model}}}\nquant: {{name: {quantizer}}}\ncalib: {{seed: {seed}}}\n"
    (folder / name / "config.yaml").write_text(config, encoding="utf-8")


def test_a_cell_has_its_verdict_or_its_state_and_the_way_to_its_report(tmp_path):
    cell = write_quantized(tmp_path, "gptq4", 0, questions=40)
    (cell / "report.html").touch()
    cell.rename(tmp_path / "one #1")
    stopped(tmp_path, "two", "m", "rtn3")
    for seed in (0, 1):
        stopped(tmp_path, f"seed{seed}", "other", "rtn3", seed)
    matrix = verdict_matrix(read_cells(tmp_path))
    assert (matrix.corner, matrix.columns, list(matrix.rows)) == ("model", ["gptq4", "rtn3"], ["m", "other"])
    [finished] = matrix.rows["m"]["gptq4"]
    assert (finished.state, finished.link) == ("done", "one%20%231/report.html")  # of a version without verdicts
    [failed] = matrix.rows["m"]["rtn3"]
    assert (failed.state, failed.explanation, failed.link) == ("failed", "no memory", "")
    assert [entry.differs_by for entry in matrix.rows["other"]["rtn3"]] == ["", "seed 1"]
    assert matrix.rows["other"]["gptq4"] == []


def test_models_and_quantizers_stand_as_the_command_gave_them(tmp_path):
    for k, (model, quantizer) in enumerate((m, q) for m in ("opt-13b", "opt-125m") for q in ("rtn8", "gptq3", "awq2")):
        stopped(tmp_path, f"{k}-{model}", model, quantizer)
    matrix = verdict_matrix(read_cells(tmp_path))
    assert (list(matrix.rows), matrix.columns) == (["opt-13b", "opt-125m"], ["rtn8", "gptq3", "awq2"])


def test_a_cell_leads_to_its_run_in_wandb(tmp_path):
    stopped(tmp_path, "0", "m", "rtn3")
    (tmp_path / "0" / "wandb").mkdir()
    (tmp_path / "0" / "wandb" / "run.json").write_text('{"id": "a", "url": "https://wandb.example/run"}', encoding="utf-8")
    [entry] = verdict_matrix(read_cells(tmp_path)).rows["m"]["rtn3"]
    assert entry.tracked == "https://wandb.example/run"


def test_quantizers_are_the_rows_where_there_are_more_of_them_than_fit_side_by_side(tmp_path):
    for k in range(MOST_COLUMNS + 1):
        stopped(tmp_path, str(k), "m", f"q{k}")
    matrix = verdict_matrix(read_cells(tmp_path))
    assert (matrix.corner, matrix.columns, len(matrix.rows), matrix.in_words) == ("quantizer", ["m"], MOST_COLUMNS + 1, True)
    for k in range(MOST_COLUMNS + 1):
        stopped(tmp_path, f"0{k}", f"model{k}", "q0")
    matrix = verdict_matrix(read_cells(tmp_path))
    assert len(matrix.columns) > MOST_COLUMNS and not matrix.in_words and matrix.signs == {"failed": "!"}
