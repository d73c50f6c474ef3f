"""A Parquet file of rows under one schema, with what made them: written whole, checked when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.decoded_size import check_decoded_size
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.results import check


@dataclass(frozen=True)
class TableFile:
    """One kind of file.

    Attributes:
        rows: What errors call its rows.
        schema: The columns.
        added_later: Columns that files of earlier versions lack; they are null there.
        where_known: Columns that are written only if a row has a value; otherwise they are null too.
    """

    rows: str
    schema: pa.Schema
    added_later: tuple[str, ...] = ()
    where_known: tuple[str, ...] = ()

    def write(self, path: Path, table: pa.Table, made_from: dict[str, Any]) -> None:
        """Write rows, whole or not at all.

        Args:
            path: The Parquet file.
            table: Rows under the schema.
            made_from: Model, quantizer, versions and the rest of what made them, for the file's metadata.
        """
        metadata = {"bitsure": json.dumps(made_from, ensure_ascii=False)}
        unknown = [name for name in self.where_known if table[name].null_count == len(table)]
        table = table.cast(self.schema).drop_columns(unknown)
        with atomic_path(path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")

    def read(self, path: Path) -> tuple[pa.Table, dict[str, Any]]:
        """Read rows.

        Returns:
            Rows under the schema, and what made them.

        Raises:
            UserError: If the file is truncated, is another kind of file, or is far larger when it is read.
        """
        try:
            check_decoded_size(path)
            table = pq.read_table(path)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as {self.rows} ({error}); remove it and run again.") from error
        for name in (*self.added_later, *self.where_known):
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), self.schema.field(name).type))
        if missing := set(self.schema.names) - set(table.column_names):
            raise UserError(f"{path} is no file of {self.rows}: it lacks the columns {', '.join(sorted(missing))}.")
        try:
            metadata = json.loads((table.schema.metadata or {}).get(b"bitsure", b"{}"))
            table = table.select(self.schema.names).replace_schema_metadata().cast(self.schema)  # others write larger types
        except (pa.ArrowException, ValueError, RecursionError) as error:
            raise UserError(f"{path} is no file of {self.rows} ({error}).") from error
        return table, check(metadata, dict[str, Any], f"{path} is no file of {self.rows}: what it was made from")
