"""Reports and comparisons from directories: our own runs and the harness's logs."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest

import bitsure
from bitsure.base.errors import UserError
from bitsure.base.plain_text import without_controls
from bitsure.records.parquet import write_records
from bitsure.records.record import to_records
from bitsure.report.command import compare_runs, report_run
from bitsure.results import write
from bitsure.sweep.report.building import build_sweep_report
from bitsure.sweep.report.sweep_terminal import show_sweep
from tests.builders.answers import paired_runs
from tests.builders.quantized_models import full_and_quantized
from tests.builders.result_files import model_origin, provenance, quantization

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def two_runs(tmp_path):
    for name, rows in zip(("full", "quantized"), full_and_quantized(0.5, 0, n=60), strict=True):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "records.parquet", rows, {})
    return tmp_path / "full", tmp_path / "quantized"


def test_two_runs_are_compared_on_the_terminal_and_nothing_is_written(two_runs, capsys):
    full, quantized = two_runs
    before = sorted(full.parent.rglob("*"))
    comparison = compare_runs(full, quantized)
    shown = capsys.readouterr().out
    assert comparison["t"]["questions_joined"].value == 60 and "true-label prob." in shown and "Verdict: " in shown
    assert sorted(full.parent.rglob("*")) == before


def test_two_runs_of_one_name_are_told_apart_by_their_folders(two_runs, capsys):
    places = [run.parent / side / "x" for side, run in zip("ab", two_runs, strict=True)]
    for run, place in zip(two_runs, places, strict=True):
        place.parent.mkdir()
        run.rename(place)
    compare_runs(*places)
    assert "\nb/x (second) against a/x (first)" in capsys.readouterr().out


def test_runs_are_called_by_model_and_quantizer_and_different_models_are_warned_of(two_runs, capsys, caplog):
    full, quantized = two_runs
    write(full / "provenance.json", provenance(model=model_origin("small")))
    write(quantized / "provenance.json", provenance(model=model_origin("small")))
    write(quantized / "quantization.json", quantization())
    compare_runs(full, quantized)
    assert re.search(r"\nsmall, rtn\S+ against small, full precision\n", capsys.readouterr().out) and not caplog.text
    write(full / "provenance.json", provenance(model=model_origin("large").model_copy(update={"fingerprint": "other"})))
    compare_runs(full, quantized)
    assert "The runs are of different models: large and small." in caplog.text


def test_a_run_is_not_compared_with_itself(two_runs):
    with pytest.raises(UserError, match=r"quantized is given twice.*Give two runs; `bitsure report` compares a run"):
        compare_runs(two_runs[1], two_runs[0].parent / "full" / ".." / "quantized")


@pytest.mark.parametrize(("first_bits", "first"), [(None, "full"), (4.5, "first")])
def test_only_a_run_in_full_precision_is_called_so(tmp_path, capsys, first_bits, first):
    runs = full_and_quantized(0.5, 0, n=60), full_and_quantized(-0.5, 0, n=60, first=20)
    for name, records, bits in (("a", runs[0][0], first_bits), ("b", runs[1][1], 3.5)):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "records.parquet", records, {})
        if bits is not None:
            write(tmp_path / name / "quantization.json", quantization(bits_per_weight=bits))
    compare_runs(tmp_path / "a", tmp_path / "b")
    shown = capsys.readouterr().out
    called = {"full": "the full-precision run", "first": "the first run"}[first]
    assert f"20 are in {called} only, 20 in the other run only" in shown and f"{called.capitalize()} itself is not" in shown
    [head] = [line.split() for line in shown.splitlines() if line.startswith("task ")]
    assert head[1] == first
    assert ("full" in shown) == (first == "full")


def test_report_command_and_python_compare_two_runs_alike(two_runs, tmp_path):
    full, quantized = two_runs
    write(quantized / "quantization.json", quantization(bits_per_weight=4.8))
    (quantized / "config.yaml").write_text("metric: {resamples: 200, n_bins: 7}\nverdict: {accuracy_margin: 0.3}\n")
    report = report_run(quantized, baseline=full, out=tmp_path / "out")
    point = report.comparison["t"]["deferral_accuracy_10_percent"]
    assert point.cost == pytest.approx(0.3 + point.share)
    for other in (quantized, bitsure.load(quantized)):
        compared = bitsure.compare(full, other)
        assert compared.by_task == report.comparison and compared.verdict == report.verdict
    assert compare_runs(full, quantized) == report.comparison


def test_an_answer_costs_as_many_bits_as_the_two_models_have(two_runs):
    for directory, bits in zip(two_runs, (8.0, 4.0), strict=True):
        write(directory / "quantization.json", quantization(bits_per_weight=bits))
    point = compare_runs(*two_runs)["t"]["deferral_accuracy_10_percent"]
    assert point.cost == pytest.approx(0.5 + point.share)


def test_a_report_goes_where_it_is_sent_and_says_so(two_runs, tmp_path, capsys):
    full, quantized = two_runs
    report = report_run(quantized, baseline=full, out=tmp_path / "out")
    assert report.page == tmp_path / "out" / "report.html" and report.page.is_file()
    assert all(drawn.path.is_file() for charts in report.figures.values() for drawn in charts.values() if drawn.path)
    assert f"report     {report.page}" in capsys.readouterr().out.splitlines()
    assert not (quantized / "report.html").exists() and {path.suffix for path in (tmp_path / "out").iterdir()} >= {".html"}


def test_a_quantizer_that_is_no_object_is_compared_with_no_published_number(two_runs):
    full, quantized = two_runs
    write(quantized / "provenance.json", provenance(model=model_origin(), weights={"quant": "gptq"}))
    assert report_run(quantized, baseline=full).published == []


def test_nothing_is_written_through_a_link_of_someone_elses_directory(two_runs, tmp_path):
    full, quantized = two_runs
    (tmp_path / "elsewhere").mkdir()
    (quantized / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"figures is a link to .*elsewhere: nothing is written through links"):
        report_run(quantized, baseline=full)
    assert not any((tmp_path / "elsewhere").iterdir()) and not (quantized / "report.html").exists()


def test_a_report_never_drops_a_runs_own_metrics_from_its_directory(two_runs, tmp_path, caplog):
    _, quantized = two_runs
    (quantized / "config.yaml").write_text("metric: {own: {twice: my_metrics.double}}\n")
    refused = r"would lose the run's own metrics twice; give --out DIR .* or --metric NAME --config-dir DIR"
    for options in ({}, {"metric_name": "paper_compat"}, {"out": quantized}):
        with pytest.raises(UserError, match=refused):
            report_run(quantized, **options)
    assert {path.name for path in quantized.iterdir()} == {"config.yaml", "records.parquet"}
    report_run(quantized, out=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "metrics.json").is_file() and "own metrics are left out: twice" in caplog.text


def test_a_damaged_file_comes_before_the_runs_own_metrics(two_runs):
    _, quantized = two_runs
    (quantized / "config.yaml").write_text("metric: {own: {twice: my_metrics.double}}\n")
    records = quantized / "records.parquet"
    records.write_bytes(records.read_bytes()[:100])
    with pytest.raises(UserError, match=r"records\.parquet"):
        report_run(quantized)


def test_directories_without_records_are_refused(two_runs, tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        report_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"is neither a run's directory nor a sweep's, .* no records\.parquet, .* samples_\*\.jsonl"
    ):
        report_run(tmp_path / "empty")


def test_runs_of_different_harness_versions_are_not_compared(two_runs):
    for directory, version in zip(two_runs, ("0.4.9", "0.4.10"), strict=True):
        rows = to_records(full_and_quantized(0.5, 0, n=5)[0])
        made_from = {task: {"libraries": {"lm_eval": version}} for task in ("zebra", "yak", "t", "ape", "ant")}
        write_records(directory / "records.parquet", [replace(row, task=task) for task in made_from for row in rows], made_from)
    refused = r"task zebra: lm_eval 0\.4\.9 scored the baseline, 0\.4\.10 the other run"
    for compared in (compare_runs, bitsure.compare, lambda full, quantized: bitsure.compare(full, bitsure.load(quantized))):
        with pytest.raises(UserError, match=refused):
            compared(*two_runs)


@pytest.mark.parametrize("place", ["model", "task", "metric", "quant", "tracking", "other"])
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_report_of_someone_elses_directory_resolves_nothing(two_runs, tmp_path, capsys, monkeypatch, kind, place):
    monkeypatch.setenv("SOME_TOKEN", "s3cret-value")
    _, run = two_runs
    value = "${oc.env:SOME_TOKEN}"
    (run / "config.yaml").write_text(f"{place}: {{name: '{value}', path: '${{oc.decode:{value}}}'}}\n")
    with suppress(UserError):  # a refusal may name the setting, not its value
        if kind == "run":
            report_run(run, out=tmp_path / "out")
        else:
            (run / "status.json").write_text('{"state": "done", "seconds": {}}')
            show_sweep(build_sweep_report(run.parent))
    assert "s3cret" not in "".join(capsys.readouterr())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


def test_escape_sequences_in_names_do_not_reach_the_terminal(tmp_path, capsys, caplog):
    hostile = "t\x1b]0;owned\x07\x1b[2J\u202egnp"
    for name, rows in zip(("full", "quantized"), paired_runs(60, task=hostile), strict=False):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "records.parquet", rows, {})
    compare_runs(tmp_path / "full", tmp_path / "quantized")
    report = report_run(tmp_path / "quantized", baseline=tmp_path / "full", out=tmp_path / "out")
    shown = "".join(capsys.readouterr()) + caplog.text
    html = report.page.read_text()
    assert "owned" in shown and without_controls(shown) == shown
    assert "owned" in html and without_controls(html) == html


def test_two_equal_runs_are_told_that_nothing_changed(two_runs, capsys):
    full, _ = two_runs
    shutil.copytree(full, full.parent / "again")
    assert compare_runs(full, full.parent / "again")["t"]["questions_equal"].value == 60
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert head == "Verdict: nothing changed" and line.startswith("All 60 records are equal: ")
