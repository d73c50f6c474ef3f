from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bitsure.base.errors import UserError
from bitsure.run.directory import end_for, is_done, open_run, why_not_here


def status(path):
    return json.loads((path / "status.json").read_text())


def test_a_run_that_ends_is_done_and_its_stages_are_timed(tmp_path):
    with open_run(tmp_path / "run", {}) as run:
        with run.stage("score"):
            assert (status(run.path)["state"], status(run.path)["stage"]) == ("running", "score")
        run.write_json("a.json", {"x": 1})
    assert status(run.path)["state"] == "done" and list(status(run.path)["seconds"]) == ["score"]
    assert json.loads((run.path / "a.json").read_text()) == {"x": 1}


@pytest.mark.parametrize(("error", "said"), [(KeyboardInterrupt(), "interrupted"), (ValueError("why"), "ValueError: why")])
def test_a_run_that_raises_has_failed_at_a_stage(tmp_path, error, said):
    with pytest.raises(type(error)), open_run(tmp_path, {}) as run, run.stage("score"):
        raise error
    assert (status(tmp_path)["state"], status(tmp_path)["error"], status(tmp_path)["stage"]) == ("failed", said, "score")


def test_a_directory_with_records_is_refused(tmp_path):
    (tmp_path / "records.parquet").touch()
    with pytest.raises(UserError, match="already holds records"), open_run(tmp_path, {}):
        pass
    assert not (tmp_path / "status.json").exists()


def test_an_unfinished_run_of_the_same_config_is_taken_over_and_of_another_refused(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path, {"a": 1}):
        (tmp_path / "records.parquet").write_bytes(b"rows PAR1")
        raise RuntimeError
    with pytest.raises(UserError, match="already holds records"), open_run(tmp_path, {"a": 2}):
        pass
    with open_run(tmp_path, {"a": 1}):
        assert not is_done(tmp_path, {"a": 1})
    assert is_done(tmp_path, {"a": 1}) and not is_done(tmp_path, {"a": 2})
    with pytest.raises(UserError, match="already holds records"), open_run(tmp_path, {"a": 1}):
        pass


def test_a_finished_run_whose_records_were_cut_short_is_not_done_and_made_again(tmp_path):
    with open_run(tmp_path, {"a": 1}):
        (tmp_path / "records.parquet").write_bytes(b"rows PAR1")
    os.truncate(tmp_path / "records.parquet", 6)
    assert not is_done(tmp_path, {"a": 1})
    with pytest.raises(UserError, match="already holds records"), open_run(tmp_path, {"a": 2}):
        pass
    with open_run(tmp_path, {"a": 1}):
        pass


def test_a_directory_of_a_living_run_is_refused_and_that_of_a_dead_one_taken_over(tmp_path):
    code = f"""
from pathlib import Path
from bitsure.run.directory import open_run
with open_run(Path({str(tmp_path)!r}), {{}}):
    print("held", flush=True)
    input()
"""
    living = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert living.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {living.pid}"), open_run(tmp_path, {}):
            pass
    finally:
        living.kill()
        living.communicate(timeout=30)
    assert status(tmp_path)["state"] == "running"
    with open_run(tmp_path, {}):
        assert status(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("state", ["killed", "timed out"])
def test_the_end_of_a_run_is_written_for_a_process_that_died(tmp_path, state):
    (tmp_path / "status.json").write_text(json.dumps({"state": "running", "pid": 7, "seconds": {"check": 1}}))
    end_for(tmp_path, 8, state, "not its run")
    assert status(tmp_path)["state"] == "running"
    end_for(tmp_path, 7, state, "signal 9")
    assert status(tmp_path)["state"] == state and status(tmp_path)["error"] == "signal 9"
    assert status(tmp_path)["seconds"] == {"check": 1}
    with open_run(tmp_path, {}):
        pass
    end_for(tmp_path, os.getpid(), state, "too late")
    assert status(tmp_path)["state"] == "done"


def test_numbers_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(ValueError), open_run(tmp_path, {}) as run:
        run.write_json("a.json", float("nan"))
    assert not (tmp_path / "a.json").exists()


def test_what_a_directory_holds_another_run_of_is_said(tmp_path):
    before = {"task": {"limit": 5, "seed": 0}, "quant": {"bits": 4}}
    with open_run(tmp_path, before):
        (tmp_path / "records.parquet").write_bytes(b"rows PAR1")
    said = why_not_here(tmp_path, {"task": {"limit": 6, "seed": 0}, "quant": {"bits": 3}})
    assert f"{tmp_path} already holds records of a run with another task.limit, quant.bits. Choose another" in said
