"""The tables of scored questions: writing, reading and checking them, and joining those of two runs."""

from bitsure.records.harness_log import read_harness_log
from bitsure.records.joining import Join, join
from bitsure.records.parquet import read_prompts, read_records, write_prompts, write_records
from bitsure.records.record import Record, Records, by_task, to_records, to_table

__all__ = [
    "Join",
    "Record",
    "Records",
    "by_task",
    "join",
    "read_harness_log",
    "read_prompts",
    "read_records",
    "to_records",
    "to_table",
    "write_prompts",
    "write_records",
]
