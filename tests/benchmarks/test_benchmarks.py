"""The benchmarks still fit what they measure: each is imported; what one process of its own says comes back."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest

from benchmarks import alone
from bitsure.config.paths import PROJECT


@pytest.mark.parametrize("name", sorted(path.stem for path in (PROJECT / "benchmarks").glob("[a-z]*.py")))
def test_every_benchmark_is_there(name):
    """With what it imports when it runs, too."""
    module = import_module(f"benchmarks.{name}")
    if name == "formats":
        import_module("benchmarks.scoring")
    assert module.__doc__


def test_work_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--one", "a name", str(tmp_path / "model"), str(tmp_path / "new" / "folder")])
    assert alone.parse(argparse.ArgumentParser(), lambda *given: [str(one) for one in given]) is None
    assert capsys.readouterr().out == f'["a name", "{tmp_path / "model"}", "{tmp_path / "new" / "folder"}"]\n'
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr("sys.argv", ["x", "--layers", "3"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int)
    assert alone.parse(parser, print).layers == 3
