"""texts.parquet: one row a scored token of a text."""

from __future__ import annotations

import pyarrow as pa

from bitsure.records.table_file import TableFile

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

TEXTS_TABLE = TableFile("the tokens of a text", TEXT_SCHEMA)
