"""A small file that would fill the memory is refused before it is read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure.base.decoded_size import check_decoded_size
from bitsure.base.errors import UserError


def repeated(text: str, n: int) -> pa.DictionaryArray:
    """Return an array that has one text n times, and takes little memory."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), pa.array([text]))


@pytest.mark.parametrize(
    "column",
    [
        repeated("x" * 3_000, 1_000_000),
        pa.ListArray.from_arrays(pa.array([0, 1_000_000], pa.int32()), repeated("x" * 3_000, 1_000_000)),
        pa.array(np.zeros(150_000_000)),
        repeated("x" * 2**25, 40),
    ],
    ids=["texts", "lists of texts", "numbers", "long texts"],
)
def test_a_file_that_becomes_gigabytes_is_refused_by_name(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "small.parquet", compression="zstd")
    assert (tmp_path / "small.parquet").stat().st_size < 1_000_000
    with pytest.raises(UserError, match=r"small\.parquet has [\d,]+ bytes and becomes [\d,]{13,} or more when it is read"):
        check_decoded_size(tmp_path / "small.parquet")


def test_ordinary_files_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("bitsure.base.decoded_size.LARGE", 100_000)
    rows = {"text": [f"text {i}" * 20 for i in range(2_000)], "names": [["a", None, "b" * (i % 50)] for i in range(2_000)]}
    pq.write_table(pa.table(rows), tmp_path / "file.parquet", compression="zstd")
    check_decoded_size(tmp_path / "file.parquet")
