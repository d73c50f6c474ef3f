"""Where a run is in W&B, seen from its directory."""

from __future__ import annotations

import json

import pytest

from bitsure.report.tracked_run import tracked_at


def write_run_file(folder, **content: object) -> None:
    (folder / "wandb").mkdir(exist_ok=True)
    (folder / "wandb" / "run.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_run_that_was_sent_has_an_address(tmp_path):
    write_run_file(tmp_path, id="a", of="b", url="https://wandb.example/me/bitsure/runs/a")
    assert tracked_at(tmp_path) == "https://wandb.example/me/bitsure/runs/a"


def test_an_offline_run_has_the_command_that_sends_it(tmp_path):
    write_run_file(tmp_path, id="a", of="b")
    run = tmp_path / "wandb" / "offline-run-20260101_000000-a"
    run.mkdir()
    assert tracked_at(tmp_path) == f"wandb sync {run}"


@pytest.mark.parametrize("content", [None, {}, {"url": 5}, {"url": "javascript:alert(1)"}])
def test_no_other_text_is_linked_to(tmp_path, content):
    if content is not None:
        write_run_file(tmp_path, **content)
    assert tracked_at(tmp_path) is None
