"""How large a compressed file becomes when it is read: one that would fill the memory is refused before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitsure.base.errors import UserError

LARGE = 2**30  # bytes; smaller contents are never refused
RATIO = 100  # a larger one may be so many times its file; Parquet files of text grow four- to twentyfold
# Bytes of a value; of a text, those that say where it begins.
WIDTHS = {"BYTE_ARRAY": 4, "BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
BATCH = 100_000  # rows whose texts are measured at once


def check_decoded_size(path: Path) -> None:
    """Check that a Parquet file's content is not far larger than the file.

    Raises:
        UserError: If it is. The file's own numbers are looked at first; texts that a dictionary repeats are measured there.
        ArrowException: If the file is damaged.
    """
    stored_bytes = path.stat().st_size
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        chunks = [metadata.row_group(i).column(j) for i in range(metadata.num_row_groups) for j in range(metadata.num_columns)]
        stored = sum(chunk.total_uncompressed_size for chunk in chunks)
        size = max(stored, sum(chunk.num_values * WIDTHS.get(chunk.physical_type, 0) for chunk in chunks))
        check_size(path, stored_bytes, size)
        # A text is at most as long as its column's part of the file; few such texts are small whatever they say.
        largest = sum(chunk.num_values * chunk.total_uncompressed_size for chunk in chunks if _is_text(chunk))
    if largest > allowed_size(stored_bytes):
        for texts in _sizes_of_texts(path):
            size += texts
            check_size(path, stored_bytes, size)


def allowed_size(stored_bytes: int) -> int:
    """Return how many bytes the content of a compressed file of this size may have."""
    return max(LARGE, RATIO * stored_bytes)


def check_size(what: object, stored_bytes: int, size: int) -> None:
    """Raise UserError if the content of a compressed file, `size` bytes or more, is larger than allowed."""
    if size > allowed_size(stored_bytes):
        raise UserError(
            f"{what} has {stored_bytes:,} bytes and becomes {size:,} or more when it is read. More than {LARGE:,} bytes may be "
            f"{RATIO} times as many as are stored. Write it again with the rows that are needed."
        )


def _is_text(chunk: pq.ColumnChunkMetaData) -> bool:
    return str(chunk.physical_type) in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


def _sizes_of_texts(path: Path) -> Iterator[int]:
    """Yield the bytes of the texts of some rows after the other; repeated texts are in memory once."""
    with pq.ParquetFile(path) as file:
        columns = [file.schema.column(i).path for i in range(len(file.schema)) if _is_text(file.schema.column(i))]
    with pq.ParquetFile(path, read_dictionary=columns) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            yield sum(_size_of_texts(column) for column in batch.columns)


def _size_of_texts(column: pa.Array) -> int:
    while pa.types.is_nested(column.type):
        if pa.types.is_struct(column.type):
            return sum(_size_of_texts(part) for part in column.flatten())
        column = column.flatten() if not pa.types.is_map(column.type) else column.items
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
