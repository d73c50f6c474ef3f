from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from bitsure.sweep.launch import gpus
from tests.builders.stopped_runs import MOST

TWO = {"0": "GPU-a", "1": "GPU-b"}
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # nvidia-smi's, by which GPUs are numbered here


@pytest.fixture(autouse=True)
def two(monkeypatch):
    monkeypatch.setattr(gpus, "_all", lambda: TWO)
    monkeypatch.setattr(gpus, "POLL", 0.01)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, ("GPU-a", "GPU-b")),
        ("1", ("GPU-b",)),
        ("1, 0", ("GPU-b", "GPU-a")),
        ("GPU-b", ("GPU-b",)),
        ("MIG-7", ("MIG-7",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_what_may_be_used_goes_by_names(chosen, expected):
    assert gpus.visible(chosen) == expected


def test_each_cell_has_one_to_itself_and_the_third_waits(tmp_path):
    third = []
    with gpus.assigned(1, tmp_path) as first, gpus.assigned(1, tmp_path) as second:
        assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"GPU-a", "GPU-b"}

        def wait():
            with gpus.assigned(1, tmp_path) as found:
                third.append(found["CUDA_VISIBLE_DEVICES"])

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.1)
        assert not third
    waiting.join(MOST)
    assert third in (["GPU-a"], ["GPU-b"])


@pytest.mark.parametrize(("count", "expected"), [(2, "GPU-a,GPU-b"), (8, "GPU-a,GPU-b")])
def test_several_are_given_together_and_never_more_than_there_are(tmp_path, count, expected):
    with gpus.assigned(count, tmp_path) as found:
        assert found == {"CUDA_VISIBLE_DEVICES": expected} | ORDER


def test_without_gpus_or_where_all_see_all_nothing_is_assigned(tmp_path, monkeypatch):
    with gpus.assigned(None, tmp_path) as found:
        assert found == {}
    monkeypatch.setattr(gpus, "_all", dict)
    with gpus.assigned(1, tmp_path) as found:
        assert found == {}


def test_that_of_an_owner_who_died_is_free_again(tmp_path):
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "GPU-a.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout.readline() == b"held\n"
        with gpus.assigned(1, tmp_path) as found:
            assert found == {"CUDA_VISIBLE_DEVICES": "GPU-b"} | ORDER
    finally:
        owner.kill()
        owner.communicate()
    with gpus.assigned(2, tmp_path) as found:
        assert found == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"} | ORDER
