"""The blocks of docs/python.md, and that of README.md, run as they stand there."""

from __future__ import annotations

import shutil

import pytest

import bitsure
from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from tests.builders.documents import code_blocks, fenced_blocks

LOAD, BASELINE, *ARRAYS = code_blocks("python.md", "python")
[IN_README] = [block.text for block in fenced_blocks(PROJECT / "README.md") if block.language == "python"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, commands):
    """A run of the embedded default with plain rounding and few questions."""
    place = tmp_path_factory.mktemp("run")
    settings = ["model=pocket-300k", "quant=rtn3", "task.names=[pocket_recall]", "task.limit=20", "metric.resamples=100"]
    settings += ["tracking.mode=disabled", "hydra.run.dir=out", f"paths.store={place / 'store'}"]
    done = commands.run(*settings, cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "out"


def test_a_run_is_loaded(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_dir, tmp_path / "outputs/2026-01-31/12-00-00")
    names: dict = {}
    exec(IN_README, names)
    exec(LOAD, names)
    exec(BASELINE, names)
    assert names["full"]["pocket_recall"]["accuracy"].value == names["run"].comparison["pocket_recall"]["accuracy"].baseline
    assert names["run"].quantization.quantizer == "rtn3"
    assert len(names["table"]) == 20


@pytest.mark.parametrize("block", ARRAYS)
def test_arrays_are_measured_and_compared(block):
    exec(block, {})


def test_what_is_loaded_compares_as_the_run_did(run_dir):
    run = bitsure.load(run_dir)
    compared = bitsure.compare(run.baseline_records, run)  # with the run's own settings
    assert compared.by_task == run.comparison and compared.verdict == run.verdict


def test_a_block_is_at_most_ten_lines():
    for block in (LOAD, BASELINE, *ARRAYS):
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_arrays_that_do_not_fit_are_a_sentence():
    with pytest.raises(UserError, match="2 questions, gold has 1"):
        bitsure.measure([[-1.0, -2.0], [-1.0, -2.0]], [0])
    with pytest.raises(UserError, match="correct choice that does not exist"):
        bitsure.measure([[-1.0, -2.0]], [2])
    with pytest.raises(UserError, match="neither"):
        bitsure.load(PROJECT / "docs")


def test_the_package_says_its_version():
    assert bitsure.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'meassure'"):
        _ = bitsure.meassure
