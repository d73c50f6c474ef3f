"""A memo tells arguments apart by their values and remembers errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import TaskSettings


def test_a_result_and_an_error_are_computed_once():
    calls = []

    def function(value: int) -> int:
        calls.append(value)
        if value < 0:
            raise UserError("negative")
        return value

    memo = Memo()
    assert [memo(function, 1), memo(function, 1), memo(function, 2)] == [1, 1, 2]
    for _ in range(2):
        with pytest.raises(UserError, match="negative"):
            memo(function, -1)
    assert calls == [1, 2, -1]


def test_settings_and_stores_are_compared_by_value(tmp_path):
    calls = []

    def function(task: TaskSettings, store: Store, names: list[str], path: Path) -> int:
        calls.append(task)
        return len(calls)

    memo, first = Memo(), TaskSettings("t", ["a", "b"])
    assert memo(function, first, Store(tmp_path), ["a"], tmp_path) == 1
    assert memo(function, TaskSettings("t", ["a", "b"]), Store(tmp_path), ["a"], tmp_path) == 1
    assert memo(function, TaskSettings("t", ["a", "c"]), Store(tmp_path), ["a"], tmp_path) == 2
    assert memo(function, first, Store(tmp_path / "other"), ["a"], tmp_path) == 3
    assert memo(function, first, Store(tmp_path), ["b"], tmp_path) == 4


def test_long_values_that_print_alike_are_told_apart_or_refused():
    numbers = np.zeros(10_000)
    other = numbers.copy()
    other[5_000] = 1
    assert repr(numbers) == repr(other)
    with pytest.raises(TypeError, match="ndarray cannot be compared by value"):
        Memo()(np.sum, numbers)
    memo = Memo()
    assert [memo(sum, tuple(values)) for values in (numbers, other)] == [0, 1]
