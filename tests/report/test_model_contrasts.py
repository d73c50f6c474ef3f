"""Which model suffers more, from run directories to the terminal."""

from __future__ import annotations

import shutil

import pytest

import bitsure
from bitsure.base.errors import UserError
from bitsure.records.parquet import write_records
from bitsure.report.model_contrasts import report_models
from tests.builders.quantized_models import full_and_quantized


def test_run_directories_are_compared_on_the_terminal(tmp_path, capsys):
    for name, (full, quantized) in {"a": full_and_quantized(0.2, 0), "b": full_and_quantized(1.0, 1)}.items():
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "baseline.parquet", full, {})
        write_records(tmp_path / name / "records.parquet", quantized, {})
    report_models([tmp_path / "a", tmp_path / "b"])
    shown = capsys.readouterr().out
    assert "Cochran's Q" in shown and "b − a, on 400 questions: -0." in shown
    shutil.copytree(tmp_path / "b", tmp_path / "other" / "a")
    report_models([tmp_path / "a", tmp_path / "other" / "a"])
    assert f"other/a − {tmp_path.name}/a, on 400 questions" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"give two or more run directories"):
        report_models([tmp_path / "a"])
    with pytest.raises(UserError, match=r"holds no baseline\.parquet and no records\.parquet"):
        report_models([tmp_path, tmp_path / "a"])


def test_a_sweep_is_no_run(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    for read in (lambda path: report_models([path]), bitsure.load):
        with pytest.raises(UserError, match="is a sweep's directory, and a run's is needed"):
            read(tmp_path)


def test_a_run_whose_two_models_were_asked_by_different_harnesses_is_refused(tmp_path):
    for name, lm_eval in {"a": "0.4.10", "b": "0.4.9"}.items():
        (tmp_path / name).mkdir()
        for file, records, by in zip(
            ("baseline", "records"), full_and_quantized(0.2, 0, n=20), ("0.4.10", lm_eval), strict=True
        ):
            write_records(tmp_path / name / f"{file}.parquet", records, {"t": {"libraries": {"lm_eval": by}}})
    with pytest.raises(UserError, match=r"task t: lm_eval 0\.4\.10 scored the baseline, 0\.4\.9 the other run"):
        report_models([tmp_path / "a", tmp_path / "b"])
