"""Every benchmark can still be imported, and work in a separate process returns its result."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest

from benchmarks import alone, verdict
from bitsure.comparison import compare
from bitsure.comparison.losses import task_losses
from bitsure.config.paths import PROJECT
from tests.builders.records import record
from tests.builders.settings import METRIC


@pytest.mark.parametrize("name", sorted(path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")))
def test_every_benchmark_can_be_imported(name):
    """Including what it imports when it runs."""
    module = import_module(f"benchmarks.{name}")
    if name == "formats":
        import_module("benchmarks.random_questions")
    assert module.__doc__


def test_a_made_up_verdict_takes_losses_as_a_comparison_does():
    """Only the standard errors of means are not resampled."""
    full, quantized = verdict.MODELS[0].answers(0, 600)
    records = [
        [
            record(scores, [int(gold.argmax())], doc_id=i)
            for i, (scores, gold) in enumerate(zip(*_by_question(side), strict=True))
        ]
        for side in (full, quantized)
    ]
    taken = task_losses(compare(*records, METRIC)["t"], verdict.MARGINS, verdict.LEVEL)
    simulated = verdict.made_up_losses(full, quantized)
    for name, loss in taken.items():
        exact = name == "calibration_error"
        assert simulated[name].value == pytest.approx(loss.value)
        assert simulated[name].error_above == pytest.approx(loss.error_above, rel=1e-9 if exact else 0.1)
    assert simulated["calibration_error"].square_errors == pytest.approx(taken["calibration_error"].square_errors)
    assert min(taken["calibration_error"].square_errors) > 0


def _by_question(questions):
    return questions.scores.reshape(-1, 2), questions.gold.reshape(-1, 2)


def test_work_in_a_separate_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--one", "a name", str(tmp_path / "model"), str(tmp_path / "new" / "folder")])
    assert alone.parse(argparse.ArgumentParser(), lambda *arguments: [str(argument) for argument in arguments]) is None
    assert capsys.readouterr().out == f'["a name", "{tmp_path / "model"}", "{tmp_path / "new" / "folder"}"]\n'
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr("sys.argv", ["x", "--layers", "3"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int)
    assert alone.parse(parser, print).layers == 3
