"""The rows of `make bench-gpu`: their time, their failures, and what the share of the peak counts."""

from __future__ import annotations

import pytest

from benchmarks import gpu, scoring
from benchmarks.gpu_table import Table, published_peak
from tests.builders.families import FAMILIES, build


def test_a_row_that_would_take_too_long_is_left_out_and_one_that_fails_stops_no_other():
    table = Table(write=False)

    def fail() -> dict[str, float]:
        raise RuntimeError("out of memory\nby 2 GiB")

    table.begin(100)
    assert table.add(fail, way="bitsure") == {} and table.add(lambda: {"seconds": 2.0}, way="bitsure") == {"seconds": 2.0}
    table.longest = 101
    assert table.add(lambda: {"seconds": 1.0}, way="bitsure") == {}
    assert [row.get("note", row.get("seconds")) for row in table.rows] == [
        "failed: by 2 GiB",
        "2",
        "not taken: the time was over",
    ]


def test_the_least_work_is_that_of_every_distinct_prefix_once():
    model, shapes = build("llama", **FAMILIES["llama"]), {shape.name: shape for shape in scoring.SHAPES}
    for name in gpu.NAMES:
        requests = scoring.draw(shapes[name], 6, 300)
        least = scoring.least_multiply_adds(model, requests)
        assert gpu._least_multiply_adds(model, requests) == pytest.approx(least, rel=0.01)


def test_a_device_has_the_peak_of_its_data_sheet():
    names = ("NVIDIA H200", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "NVIDIA GeForce RTX 4090")
    assert [2 * published_peak(name) / 1e12 for name in names] == [989, 756, 312, 362, 165]
    assert published_peak("Tesla T4") is None
