from __future__ import annotations

import importlib.util
import mmap
import sys

import torch

from bitsure.base import resources
from tests.builders.fake_gpu import fake_gpu

MB = 2**20


def hold(megabytes: int) -> None:
    """In new pages: an allocator may hand out again what the process has held since an earlier test."""
    with mmap.mmap(-1, megabytes * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1


def test_the_peak_is_what_was_held_inside_even_if_freed():
    with resources.watch_memory() as memory:
        hold(50)
    assert 40e6 < memory.rise < 120e6


def test_a_block_inside_another_takes_nothing_from_its_peak():
    with resources.watch_memory() as outer:
        hold(100)
        with resources.watch_memory() as inner:
            hold(20)
    assert inner.rise < 60e6 and outer.rise > 90e6
    assert resources._open_watches == []


def test_a_measured_block_knows_its_seconds_and_peaks_when_it_has_ended(monkeypatch):
    clock = iter((10.0, 12.5))
    monkeypatch.setattr(resources.time, "monotonic", lambda: next(clock))
    with resources.measured() as use:
        hold(50)
    assert use.seconds == 2.5 and use.peak_memory_bytes > 50 * MB
    assert (use.peak_gpu_memory_bytes is None) == (not torch.cuda.is_available())


def test_a_gpus_memory_can_be_watched_before_it_is_used():
    cuda = torch.device("cuda", 0)
    with fake_gpu(), resources.watch_memory(cuda) as memory:
        torch.zeros(1000, device=cuda)
    assert memory.rise == 4000


def test_a_container_limits_what_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    without = resources.free_memory(torch.device("cpu"))
    assert without > 0
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 100\n")
    assert resources.free_memory(torch.device("cpu")) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.free_memory(torch.device("cpu")) > 10**6


def test_a_system_without_limits_of_processes_has_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.find_spec("bitsure.base.resources")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bitsure.base.resources", module)
    spec.loader.exec_module(module)
    assert module.memory_limits() == {}
