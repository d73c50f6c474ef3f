"""A run's directory says at every moment whose it is, how far the run came and why it stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.run import directory
from bitsure.run.directory import is_done, open_run, read_status, why_not_here, write_end
from tests.builders.stopped_runs import MOST, check_status


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
        (tmp_path / "metrics.json").write_text("{}")
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
        living.communicate(timeout=MOST)
    assert status(tmp_path)["state"] == "running"
    with open_run(tmp_path, {}):
        assert status(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("state", ["killed", "timed out", "failed"])
def test_the_end_of_a_process_that_died_is_written_for_it(tmp_path, state):
    (tmp_path / "status.json").write_text(
        json.dumps({"state": "running", "host": "here", "pid": 7, "started": 1.0, "error": None, "seconds": {"check": 1}})
    )
    write_end(tmp_path, {}, 7, state, "signal 9")
    assert status(tmp_path)["state"] == state and status(tmp_path)["error"] == "signal 9"
    assert status(tmp_path)["seconds"] == {"check": 1} and status(tmp_path)["pid"] == 7
    with open_run(tmp_path, {}):
        pass
    write_end(tmp_path, {}, os.getpid(), state, "too late")
    assert status(tmp_path)["state"] == "done"


def test_the_end_of_a_process_that_died_before_its_first_status_is_written_for_it(tmp_path):
    write_end(tmp_path, {}, 8, "killed", "signal 9")
    check_status(tmp_path, "killed")
    assert status(tmp_path)["pid"] == 8


@pytest.mark.parametrize("before", ["running", "failed", "killed"])
def test_a_status_of_an_earlier_process_does_not_stand_for_one_that_died_since(tmp_path, before):
    write_end(tmp_path, {}, 7, "failed", "the first try")
    (tmp_path / "status.json").write_text(json.dumps(status(tmp_path) | {"state": before}))
    write_end(tmp_path, {}, 8, "killed", "the second try")
    check_status(tmp_path, "killed")
    assert (status(tmp_path)["pid"], status(tmp_path)["error"]) == (8, "the second try")


def test_the_status_of_a_run_that_goes_on_is_left_alone(tmp_path):
    with open_run(tmp_path, {}):
        before = (tmp_path / "status.json").read_text()
        write_end(tmp_path, {}, os.getpid() + 1, "killed", "another process")
        assert (tmp_path / "status.json").read_text() == before


def test_what_a_process_wrote_of_its_failure_is_kept(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path, {}):
        raise RuntimeError("why")
    write_end(tmp_path, {}, os.getpid(), "failed", "exit code 1")
    assert status(tmp_path)["error"] == "RuntimeError: why"


@pytest.mark.parametrize("name", ["status.json", "config.yaml"])
def test_a_run_that_is_interrupted_while_it_writes_its_first_files_says_so(tmp_path, monkeypatch, name):
    written = []

    def interrupted(path: Path, *content: object, write: Callable[..., None]) -> None:
        write(path, *content)
        written.append(path.name)
        if written == ["status.json", "config.yaml"][: len(written)] and path.name == name:
            raise KeyboardInterrupt

    monkeypatch.setattr(results, "write", partial(interrupted, write=results.write))
    monkeypatch.setattr(directory, "write_text", partial(interrupted, write=directory.write_text))
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, {}):
        pytest.fail("the run was to be interrupted before")
    check_status(tmp_path, "failed")
    assert status(tmp_path)["error"] == "interrupted"


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_keep_the_status_from_being_written(tmp_path, monkeypatch, second):
    write = results.write

    def signalled(path: Path, value: object) -> None:
        if getattr(value, "state", None) == "failed":
            os.kill(os.getpid(), second)
        write(path, value)

    monkeypatch.setattr(results, "write", signalled)
    before = signal.getsignal(second)
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, {}):
        raise KeyboardInterrupt
    check_status(tmp_path, "failed")
    assert signal.getsignal(second) is before


def test_a_status_that_cannot_be_read_is_none(tmp_path):
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text("{")
    assert read_status(tmp_path) is None


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


@pytest.mark.parametrize("content", ["", '{"task_0": {"accur', "[" * 100_000, '{"t": {"accuracy": 1}}'])
@pytest.mark.parametrize("name", ["status.json", "metrics.json", "comparison.json", "provenance.json"])
def test_a_finished_run_with_a_damaged_file_is_not_done_and_made_again(tmp_path, name, content):
    with open_run(tmp_path, {"a": 1}):
        (tmp_path / "records.parquet").write_bytes(b"rows PAR1")
        (tmp_path / "metrics.json").write_text("{}")
    assert is_done(tmp_path, {"a": 1}) and why_not_here(tmp_path, {"a": 1})
    (tmp_path / name).write_text(content)
    assert not is_done(tmp_path, {"a": 1}) and why_not_here(tmp_path, {"a": 1}) is None
    assert "already holds records" in why_not_here(tmp_path, {"a": 2})


def test_a_full_disk_is_a_sentence_even_where_the_status_cannot_be_written(tmp_path, monkeypatch):
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=f"{tmp_path}: No space left on device. Free space"), open_run(tmp_path, {}):
        monkeypatch.setattr(results, "write", full)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert status(tmp_path)["state"] == "running"  # as it was: whoever looks sees that its process is gone


def test_a_file_in_the_place_of_a_runs_directory_is_a_sentence(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match=r"run: File exists\..*hydra\.run\.dir=DIR"), open_run(tmp_path / "run", {}):
        pass
    assert (tmp_path / "run").read_text() == "mine"


def test_the_end_of_a_refused_process_leaves_another_runs_status(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path, {"a": 1}):
        (tmp_path / "records.parquet").write_bytes(b"rows PAR1")
        raise RuntimeError("why")
    write_end(tmp_path, {"a": 2}, os.getpid() + 1, "failed", "refused")
    assert status(tmp_path)["error"] == "RuntimeError: why"
