"""Every benchmark can still be imported, and work in a separate process returns its result."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest

from benchmarks import alone
from bitsure.config.paths import PROJECT


@pytest.mark.parametrize("name", sorted(path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")))
def test_every_benchmark_can_be_imported(name):
    """Including what it imports when it runs."""
    module = import_module(f"benchmarks.{name}")
    if name == "formats":
        import_module("benchmarks.scoring")
    assert module.__doc__


def test_work_in_a_separate_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--one", "a name", str(tmp_path / "model"), str(tmp_path / "new" / "folder")])
    assert alone.parse(argparse.ArgumentParser(), lambda *arguments: [str(argument) for argument in arguments]) is None
    assert capsys.readouterr().out == f'["a name", "{tmp_path / "model"}", "{tmp_path / "new" / "folder"}"]\n'
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr("sys.argv", ["x", "--layers", "3"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int)
    assert alone.parse(parser, print).layers == 3
