"""Nothing is scored with weights that were not hashed, whatever the size and the time of files say."""

from __future__ import annotations

import shutil

import pytest

from bitsure.base.errors import UserError
from bitsure.run import pipeline
from tests.builders.composing import composed
from tests.builders.damage import damage_in_place

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def run(tiny_model, own_tasks, tmp_path):
    """Return a function that runs the same cell into a directory of the given name."""
    model = [f"model.path={tiny_model}", f"task.include_path={own_tasks}", f"paths.store={tmp_path / 'store'}"]
    fixed = ["model=local", *model, "quant=rtn3", "task.names=[tiny_pets]", "task.limit=8"]

    def into(name: str, *overrides: str):
        settings = composed(*fixed, "metric.resamples=100", "tracking.mode=disabled", *overrides)
        pipeline.run(settings, tmp_path / name)
        return tmp_path / name

    return into


def test_records_and_weights_damaged_at_their_size_and_time_are_made_again(run, tmp_path):
    first, store = run("first"), tmp_path / "store"
    damaged = [*(store / "records").glob("[!.]*/records.parquet"), *(store / "weights").glob("[!.]*/*.safetensors")]
    assert len(damaged) == 3
    for file in damaged:
        damage_in_place(file)
    second = run("second")
    for name in ("records.parquet", "baseline.parquet", "metrics.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes(), name


def test_a_model_that_is_damaged_during_a_run_is_not_scored(run, tiny_model, tmp_path, monkeypatch):
    copy, load_tasks = shutil.copytree(tiny_model, tmp_path / "copy"), pipeline.load_tasks

    def damage_and_load(*given):
        damage_in_place(copy / "model.safetensors")
        load_tasks(*given)

    monkeypatch.setattr(pipeline, "load_tasks", damage_and_load)
    monkeypatch.setattr("bitsure.models.locate.load_model", lambda *given: pytest.fail("it is loaded"))
    with pytest.raises(UserError, match=r"copy/model\.safetensors does not hold what identifies this model"):
        run("run", f"model.path={copy}", "quant=none")
