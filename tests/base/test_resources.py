from __future__ import annotations

import mmap
import time

import torch

from bitsure.base import resources as costs

MB = 2**20


def hold(megabytes: int) -> None:
    """In new pages: an allocator may hand out again what the process has held since an earlier test."""
    with mmap.mmap(-1, megabytes * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1


def test_the_peak_is_what_was_held_inside_even_if_freed():
    with costs.watch_memory() as memory:
        hold(50)
    assert 40e6 < memory.rise < 120e6


def test_a_block_inside_another_takes_nothing_from_its_peak():
    with costs.watch_memory() as outer:
        hold(100)
        with costs.watch_memory() as inner:
            hold(20)
    assert inner.rise < 60e6 and outer.rise > 90e6
    assert costs._watched == []


def test_what_was_measured():
    with costs.measured() as took:
        hold(50)
        time.sleep(0.02)
    assert took["seconds"] >= 0.02 and took["peak_memory_bytes"] > 50 * MB
    assert (took["peak_gpu_memory_bytes"] is None) == (not torch.cuda.is_available())


def test_tasks_together_by_hand():
    one = {"what": "scoring", "seconds": 2.0, "tokens": 100, "peak_memory_bytes": 7, "peak_gpu_memory_bytes": None}
    other = one | {"seconds": 3.0, "tokens": 400, "peak_memory_bytes": 5}
    found = costs.of_scoring({"a": one, "b": other, "went_on": None})
    by_task = found.pop("by_task")
    total = {"seconds": 5.0, "tokens": 500, "tokens_per_second": 100.0}
    assert found == total | {"peak_memory_bytes": 7, "peak_gpu_memory_bytes": None}
    assert by_task.keys() == {"a", "b"} and by_task["a"]["tokens_per_second"] == 50 and "what" not in by_task["a"]
    assert costs.of_scoring({"went_on": None}) is None
    old = costs.of_scoring({"a": {"seconds": 1.0, "tokens": 5}})  # kept before peaks were
    assert old["tokens_per_second"] == 5 and old["peak_memory_bytes"] is None


def test_a_container_limits_what_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "CGROUP", tmp_path)
    without = costs.free_memory(torch.device("cpu"))
    assert without > 0
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 100\n")
    assert costs.free_memory(torch.device("cpu")) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert costs.free_memory(torch.device("cpu")) > 10**6
