"""A finished cell whose files were changed since: neither done beside new ones nor made again in silence."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from bitsure.base.memo import Memo
from bitsure.config.schema import resolved
from bitsure.quantize.native.rtn import Rtn
from bitsure.run import pipeline, stale
from bitsure.run.provenance import collect, full_names
from bitsure.sweep.launch import dry_run
from bitsure.sweep.launch.composed_cell import CellErrors
from bitsure.tasks.open_questions import open_files
from tests.builders.data_sets import ASKED_TASK, question_rows, write_data_set
from tests.builders.sweep_commands import compose_valid

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def finished(tiny_model, calib_file, tmp_path, monkeypatch):
    """A cell of a model, a text and a task of one's own folders and of a mirror; run, as far as its provenance tells."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copyfile(calib_file, tmp_path / "calib.txt")
    write_data_set(tmp_path / "mirror", "org/asked", {"test": question_rows("one")})
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "asked.yaml").write_text(ASKED_TASK)
    settings = ["model=local", f"model.path={tmp_path / 'model'}", "quant=rtn3", "tracking.mode=disabled"]
    settings += ["task.names=[asked]", f"task.include_path={tmp_path / 'tasks'}", f"paths.hub_mirror={tmp_path / 'mirror'}"]
    settings += ["calib=text", f"calib.path={tmp_path / 'calib.txt'}", "calib.nsamples=8", "calib.seqlen=64"]
    [cell] = compose_valid(*settings, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    pipeline.run(cell.config, cell.directory)
    return cell


def test_what_has_changed_since_a_run_finished_is_named_and_the_cell_not_run_beside(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("bitsure.run.preparation.prepare", lambda *given: pytest.fail("a finished cell was prepared"))

    def inspect() -> tuple[str, list[str]]:
        errors = CellErrors()
        [cell] = dry_run.inspect_cells([finished], errors, Memo())
        return cell.state, errors.lines()

    assert inspect() == ("done", [])
    data = tmp_path / "mirror" / "datasets" / "org"
    changes = {
        tmp_path / "model" / "config.json": f"the model in {tmp_path / 'model'}",
        tmp_path / "calib.txt": f"the calibration text {tmp_path / 'calib.txt'}",
        tmp_path / "tasks" / "asked.yaml": f"the tasks in {tmp_path / 'tasks'}",
        data / "asked" / "test.jsonl": f"the data set org/asked in {tmp_path / 'mirror'}",
    }
    for file, said in changes.items():
        before = file.read_text()
        file.write_text(before + " ")
        assert said in stale.changed(finished.config, finished.directory)
        [error] = inspect()[1]
        assert f"done, but {said}" in error and "Choose another hydra.sweep.dir" in error
        file.write_text(before)
        assert stale.changed(finished.config, finished.directory) == []
    (data / "other").mkdir()
    (data / "other" / "x.jsonl").write_text("{}")  # of no matter to the task that was run
    shutil.rmtree(data)  # what is gone cannot be looked at
    shutil.rmtree(tmp_path / "model")  # not here any more: the result stays
    assert inspect() == ("done", [])


def test_a_run_whose_provenance_cannot_be_read_is_left_as_it_is(finished):
    (finished.directory / "provenance.json").write_text("{")
    assert stale.changed(finished.config, finished.directory) == []


def test_own_classes_with_equal_settings_are_told_apart_and_their_paths_are_plain():
    @dataclass
    class Mine(Rtn):
        table: Path = Path("codes.txt")

    config = compose_valid("quant=rtn3")[0].config
    ours, mine = resolved(config), resolved(replace(config, quant=Mine(bits=3, group_size=128, symmetric=True)))
    assert "class" not in ours["quant"] and "own" not in ours["metric"]
    assert mine["quant"]["class"].endswith("Mine") and mine["quant"]["table"] == "codes.txt"
    yaml.safe_dump(mine)


def test_a_changed_recipe_and_a_changed_file_of_open_questions_are_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("layers:\n  a: 3\n")
    (tmp_path / "questions.jsonl").write_text('{"turns": ["One?"]}\n')
    given = (f"task.open.file={tmp_path / 'questions.jsonl'}", "quant=mixed", f"quant.recipe={tmp_path / 'recipe.yaml'}")

    def named() -> list[str]:
        config = compose_valid(*given)[0].config
        return [phrase for find in (stale._open_questions, stale._recipe) for phrase in find(config, origin, Memo())]

    config = compose_valid(*given)[0].config
    weights, files = {"quant": config.quant.identity(None)}, open_files(config.task.open)
    origin = collect(full_names(config)).model_copy(update={"weights": weights, "open_files": files})
    assert named() == []
    (tmp_path / "recipe.yaml").write_text("layers:\n  a: 4\n")
    (tmp_path / "questions.jsonl").write_text('{"turns": ["Two?"]}\n')
    first, second = named()
    assert first == f"the file {tmp_path / 'questions.jsonl'}" and second.startswith("the recipe of quant=")
