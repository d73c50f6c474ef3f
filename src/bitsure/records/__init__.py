"""The tables of scored questions: writing, reading and checking them, and joining those of two runs."""

from bitsure.records.harness_log import read_harness_log
from bitsure.records.joining import Join, join
from bitsure.records.parquet import read_prompts, read_records, write_prompts, write_records
from bitsure.records.plain_arrays import records_from_arrays
from bitsure.records.record import Record, Records, by_task, to_records, to_table
from bitsure.records.saved_run import SavedRun, check_harness_versions, read_own_baseline, read_saved_run

__all__ = [
    "Join",
    "Record",
    "Records",
    "SavedRun",
    "by_task",
    "check_harness_versions",
    "join",
    "read_harness_log",
    "read_own_baseline",
    "read_prompts",
    "read_records",
    "read_saved_run",
    "records_from_arrays",
    "to_records",
    "to_table",
    "write_prompts",
    "write_records",
]
