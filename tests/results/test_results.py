"""Result files: what is written is read back, and what does not fit is named."""

from __future__ import annotations

import json

import pytest

from benchmarks import metric_page
from benchmarks.results import PAGE, page
from bitsure import results
from bitsure.base.errors import UserError
from bitsure.metrics.metric_registry import METRICS
from bitsure.results import Difference, Measurement, MetricsByTask
from bitsure.results.costs import WorkCosts
from tests.builders.result_files import quantization


def test_a_field_that_is_not_set_is_absent_and_none_is_null():
    number = Measurement(value=None, ci_low=0.1, ci_high=0.2, n=3)
    assert json.loads(results.to_json(number)) == {"value": None, "ci_low": 0.1, "ci_high": 0.2, "n": 3}


def test_what_is_written_is_read_back(tmp_path):
    numbers = {"task": {"accuracy": Measurement(value=0.5, ci_low=0.25, ci_high=0.75, n=12, interval="percentile bootstrap")}}
    results.write(tmp_path / "metrics.json", numbers)
    assert results.read(tmp_path / "metrics.json", MetricsByTask) == numbers


@pytest.mark.parametrize(("threads", "read"), [("4", 4), ("4,2", None), ("", None), (None, None), (4, 4)])
def test_threads_of_earlier_versions_are_read(tmp_path, threads, read):
    """They wrote OMP_NUM_THREADS, which may be a list or empty."""
    file = tmp_path / "provenance.json"
    machine = {"system": "Linux", "processor": "x86_64", "cores": 8, "threads": threads}
    common = {"command": [], "git_commit": None, "git_changed_files": 0, "python": "3.11", "packages": {}}
    file.write_text(json.dumps({**common, "machine": machine}))
    assert results.read(file, results.Provenance).machine.threads == read


def test_a_number_that_is_not_finite_is_null_in_a_measurement_and_refused_elsewhere():
    assert Measurement(value=float("nan"), ci_low=None, ci_high=None, n=1).value is None
    with pytest.raises(ValueError, match="Out of range float"):
        results.to_json(WorkCosts(seconds=float("inf"), peak_memory_bytes=None, peak_gpu_memory_bytes=None))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"task": {"accuracy": {"value": 1, "ci_low": 0, "ci_high": 1}}}', "task.accuracy.n"),
        ('{"task": {"accuracy": {"value": 1, "ci_low": 0, "ci_high": 1, "n": "many"}}}', "task.accuracy.n"),
        ('{"task": {"accuracy": {"value": 1, "ci_low": 0, "ci_high": 1, "n": 2, "odd": 3}}}', "task.accuracy.odd"),
        ('{"task": {"accuracy": {"value": 1, "ci_low": 0, "ci_high": 1, "n": 1000000000000000000000000}}}', "task.accuracy.n"),
        ('{"task": {"accuracy"', "the file"),
        ("[" * 100_000, "the file"),
        ("\udcff", "the file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name_and_the_field(tmp_path, text, names):
    path = tmp_path / "metrics.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=rf"metrics\.json.*{names}"):
        results.read(path, MetricsByTask)


@pytest.mark.parametrize(
    ("kind", "changes", "names"),
    [
        (results.Quantization, {"parameter_share": 1e308}, "parameter_share"),
        (results.Quantization, {"bits_per_weight": -1}, "bits_per_weight"),
        (results.Compressibility, {"loading": {"bandwidth_mb_per_second": 1.0, "by_coder": {}}}, "loading: .*the coders are"),
    ],
)
def test_numbers_that_no_run_has_and_missing_parts_are_refused(kind, changes, names):
    nothing = {"weights": None, "activations": None, "loading": None}
    whole = results.to_plain(quantization()) if kind is results.Quantization else nothing
    results.check(whole, kind, "a file")
    with pytest.raises(UserError, match=f"a file: {names}"):
        results.check(whole | changes, kind, "a file")


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"verdict\.json cannot be read: No such file"):
        results.read(tmp_path / "verdict.json", results.Verdict)
    assert results.read_if_there(tmp_path / "verdict.json", results.Verdict) is None


def test_every_field_says_what_it_is():
    kinds = [Measurement, Difference, results.Verdict, results.Quantization, results.Costs, results.Provenance, results.Status]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name} has no docstring"


def test_the_page_is_what_the_classes_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/results.md is of other classes: make docs-results"


def test_the_page_of_metrics_has_each_once_and_is_what_the_registry_says():
    names = [name for section in metric_page.SECTIONS for name in section.metrics()]
    assert sorted(names) == sorted(METRICS)
    assert metric_page.PAGE.read_text(encoding="utf-8") == metric_page.page(), "docs/metrics.md is old: make docs-results"
