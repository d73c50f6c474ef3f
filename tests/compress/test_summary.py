"""Entropies and sizes over several tensors."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.compress.codes import CodedTensor
from bitsure.compress.summary import summarize


def coded(codes: list[list[int]], **units: list[int]) -> CodedTensor:
    array = np.array(codes, np.uint8)
    levels = {level: np.array(of_rows)[:, None] for level, of_rows in units.items()}
    return CodedTensor(
        bits=2, codes=array, share=1.0, weights=array.size, units=levels, statistics=bytes(4), stored_bits=2.0 * array.size + 32
    )


@pytest.mark.parametrize("with_groups", [0, 1])
def test_entropies_are_means_over_codes_of_the_levels_that_all_tensors_have(with_groups):
    tensors = [coded([[0, 1, 2, 3]], token=[0]), coded([[0, 0, 1, 1]] * 3, token=[0, 1, 2])]  # 2 bits a code, and 1
    tensors[with_groups].units["group"] = np.zeros((1, 1), np.int64)
    summary = summarize(zip("ab", tensors, strict=True))
    assert summary.entropy.keys() == {"tensor", "token"}
    assert [summary.entropy[level].value for level in ("tensor", "token")] == pytest.approx([(4 * 2 + 12 * 1) / 16] * 2)
    assert [summary.entropy[level].n for level in ("tensor", "token")] == [2, 4]
    assert "group" in summary.tensors["ab"[with_groups]].entropy
