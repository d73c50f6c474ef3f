"""Documents of text in files: finding the files, and reading them."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bitsure.base.decoded_size import allowed_size, check_decoded_size, check_size
from bitsure.base.errors import UserError, in_one_line
from bitsure.base.files import files_under

TEXT_COLUMN = "text"


def find_files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or those of a folder and its subfolders, links followed, that can be read, in their names' order.

    Raises:
        UserError: If there is none.
    """
    if path.is_dir():
        files = tuple(file for file in files_under(path) if file.name.endswith(tuple(READERS)))
        if not files:
            raise UserError(f"calib.path={path}: the folder holds no file that ends in {', '.join(READERS)}.")
        return files
    if not path.is_file():
        raise UserError(f"calib.path={path}: no such file or folder.")
    if not path.name.endswith(tuple(READERS)):
        raise UserError(f"calib.path={path}: expected .txt, or .jsonl, .json.gz or .parquet with a `text` field, or a folder.")
    return (path,)


def read_documents(path: Path, document_start: str | None = None) -> list[str]:
    """Return the documents of a file: the paragraphs of a .txt, the `text` of each line or row of the others.

    Args:
        path: The file.
        document_start: A regular expression; lines or rows are joined into one document until the next that it matches.

    Raises:
        UserError: If the file is not what its name says; the line or row is named.
    """
    parts = read_parts(path)
    if path.name.endswith(PLAIN):
        parts = [part for part in parts[0].split("\n\n") if part.strip()]
    return parts if document_start is None else _join(parts, document_start)


def read_parts(path: Path, field: str = TEXT_COLUMN) -> list[str]:
    """Return the whole of a .txt file, or the text of each line or row of the others.

    Args:
        path: The file.
        field: The field of a line, or the column, that holds the text.

    Raises:
        UserError: If the file is not what its name says; the line or row is named.
    """
    reader = next(reader for ending, reader in READERS.items() if path.name.endswith(ending))
    try:
        return list(reader(path, field))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {in_one_line(error)}") from error


def _join(parts: list[str], document_start: str) -> list[str]:
    documents: list[list[str]] = []
    for part in parts:
        if not documents or re.match(document_start, part):
            documents.append([])
        documents[-1].append(part.removesuffix("\n"))
    return ["\n".join(document) for document in documents]


def _whole(path: Path, field: str) -> Iterator[str]:
    return iter([path.read_text(encoding="utf-8")])


def _json_lines(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8") if path.suffix != ".gz" else gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines if path.suffix != ".gz" else _within_limit(lines, path), 1):
            try:
                text = json.loads(line)[field]
            except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}: expected a JSON object with a `{field}` field.") from error
            yield _checked(text, field, f"{path}, line {number}")


def _within_limit(lines: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a compressed file. Raises UserError if they are far larger than the file."""
    stored_bytes, size = path.stat().st_size, 0
    while line := lines.readline(allowed_size(stored_bytes) - size + 1):
        size += len(line)
        check_size(path, stored_bytes, size)
        yield line


def _parquet_rows(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_decoded_size(path)
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if field not in columns:
                raise UserError(f"{path}: expected a column `{field}`; it has {', '.join(columns)}.")
            texts = file.read([field])[field].to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, text in enumerate(texts, 1):
        yield _checked(text, field, f"{path}, row {number}")


def _checked(text: object, field: str, where: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{where}: expected a string as `{field}`, got {text!r}.")
    return text


PLAIN = ".txt"
READERS = {PLAIN: _whole, ".jsonl": _json_lines, ".json.gz": _json_lines, ".parquet": _parquet_rows}
