"""texts.parquet: one row a scored token of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.decoded_size import check_decoded_size
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.results import check

TEXT_SCHEMA = pa.schema(
    [
        ("task", pa.string()),  # text/<name>/<protocol>, text/<task>/prompts or text/<task>/answers
        ("document", pa.int32()),  # from 0
        ("position", pa.int64()),  # in the document, in tokens from 0
        ("window", pa.int32()),  # of the model's inputs, from 0
        ("token", pa.int32()),  # the true token's id
        ("logprob", pa.float32()),  # its log-probability, nats, ≤ 0
        ("top_token", pa.int32()),  # the most likely token's id
        ("top_prob", pa.float64()),  # its probability, in (0, 1]; in doubles, so that 1 less it has digits
        ("bytes", pa.int32()),  # UTF-8 bytes of the text that the token stands for
        ("kl_divergence", pa.float64()),  # KL(full precision ‖ this model) over the vocabulary, nats; null for full precision
    ]
)


def write_text_tokens(path: Path, tokens: pa.Table, made_from: dict[str, Any]) -> None:
    """Write the tokens of texts, whole or not at all.

    Args:
        path: The Parquet file.
        tokens: Rows under TEXT_SCHEMA.
        made_from: Task → model, text, versions and the rest of what made them, for the file's metadata.
    """
    metadata = {"bitsure": json.dumps(made_from, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        pq.write_table(tokens.cast(TEXT_SCHEMA).replace_schema_metadata(metadata), temporary, compression="zstd")


def read_text_tokens(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read the tokens of texts.

    Returns:
        Rows under TEXT_SCHEMA, and what made them.

    Raises:
        UserError: If the file is truncated, is no such file, or has a log-probability that is none.
    """
    try:
        check_decoded_size(path)
        table = pq.read_table(path)
        table.validate(full=True)
        metadata = json.loads((table.schema.metadata or {}).get(b"bitsure", b"{}"))
        table = table.select(TEXT_SCHEMA.names).replace_schema_metadata().cast(TEXT_SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as the tokens of a text ({error}); remove it and run again.") from error
    return table, check(metadata, dict[str, Any], f"{path} is no file of a text's tokens: what it was made from")
