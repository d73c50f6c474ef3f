"""The examples of docs/extending.md run as they stand there, from composing to the report of a sweep."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from bitsure.config.paths import PROJECT
from tests.builders.documents import code_blocks

CODE, SETTINGS = code_blocks("extending.md", "python")[0], code_blocks("extending.md", "yaml")[0]
ONE_RUN, SWEEP = code_blocks("extending.md", "bash")[0].splitlines()
QUICK = ["model=pocket-300k", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example's files, each named by its first line."""
    place = tmp_path_factory.mktemp("own")
    for block in (CODE, SETTINGS):
        file = place / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block)
    return place


@pytest.fixture(scope="module")
def finished(folder):
    """The directory of the first command's run."""
    return run(folder, ONE_RUN, f"hydra.run.dir={folder / 'one'}") and folder / "one"


def run(folder, command: str, *more: str) -> str:
    python, script, *given = shlex.split(command)
    assert (python, script) == ("python", "main.py")
    environment = os.environ | {"BITSURE_STORE": str(folder / "store"), "PYTHONPATH": f"{folder}:{PROJECT / 'src'}"}
    done = subprocess.run(
        [sys.executable, str(PROJECT / script), *given, *QUICK, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def entries(folder, kind: str) -> set[str]:
    """The entries of a kind in the store."""
    return {path.parent.name for path in (folder / "store" / kind).rglob("manifest.json")}


def test_an_example_is_at_most_thirty_lines():
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 30


def test_a_quantizer_of_ones_own_is_proven_scored_compared_and_reported(finished):
    proof = json.loads((finished / "quantization.json").read_text())
    assert proof["quantizer"] == "mine4-0.999"
    assert 4 < proof["bits_per_weight"] < 4.5 and 0 < proof["relative_error"] < 0.3
    assert len(proof["modules_quantized"]) == len(proof["layers"]) > 0
    compared = json.loads((finished / "comparison.json").read_text())
    assert compared["pocket_recall"]["accuracy"]["n"] == 20
    assert "mine4-0.999" in (finished / "report.html").read_text()
    made_from = json.loads((finished / "provenance.json").read_text())["weights"]["quant"]
    assert made_from["method"] == "my_quantizer.Mine" and (made_from["bits"], made_from["kept"]) == (4, 0.999)


@pytest.mark.slow
def test_the_same_command_takes_its_results_from_the_store(folder, finished):
    before = entries(folder, "weights"), entries(folder, "records")
    run(folder, ONE_RUN, f"hydra.run.dir={folder / 'again'}")
    assert (entries(folder, "weights"), entries(folder, "records")) == before
    for name in ("comparison.json", "metrics.json"):
        assert (folder / "again" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_its_settings_are_swept(folder, finished):
    before = entries(folder, "weights")
    run(folder, SWEEP, f"hydra.sweep.dir={folder / 'sweep'}")
    assert len(entries(folder, "weights") - before) == 1  # the cell with 4 bits is in the store
    table = pd.read_parquet(folder / "sweep" / "sweep.parquet")
    assert set(table.quantizer) >= {"mine4-0.999", "mine3-0.999"} and set(table.status) == {"done"}
    assert "mine3-0.999" in (folder / "sweep" / "sweep.html").read_text()


def test_another_text_of_the_method_is_another_key(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import my_quantizer

    quantizer = my_quantizer.Mine(bits=4)
    before = quantizer.identity(None)
    (folder / "my_quantizer.py").write_text(CODE + "\n# edited\n")
    after = quantizer.identity(None)
    (folder / "my_quantizer.py").write_text(CODE)
    assert before.pop("code") != after.pop("code") and before == after
