"""The sample record: one row per scored question, and joining two runs of the same questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, hash_json

ROUNDING = 1e-6  # how far above 0 a log-probability may come out of a float32

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("target_hash", pa.string()),
        ("choices", pa.list_(pa.string())),  # without the delimiter that stands before them
        ("gold", pa.list_(pa.int32())),  # indices of the right choices
        ("choice_logprobs", pa.list_(pa.float64())),  # sum over the choice's tokens, nats, ≤ 0
        ("choice_tokens", pa.list_(pa.int32())),
        ("choice_greedy", pa.list_(pa.bool_())),
        ("token_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("cluster", pa.string()),  # equal where questions have something in common; null where that is not known
        ("words", pa.int64()),  # of a text that is scored as a whole, as its task counts them; null for questions
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Record:
    """One scored question; SCHEMA has the fields' types and units."""

    task: str
    doc_id: int
    doc_hash: str
    prompt_hash: str
    target_hash: str
    choices: list[str]
    gold: list[int]
    choice_logprobs: list[float]
    choice_tokens: list[int] | None
    choice_greedy: list[bool]
    token_logprobs: list[list[float]] | None
    cluster: str | None = None
    words: int | None = None
    bytes: int | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two runs' rows the same question."""
        return self.task, self.doc_hash, self.prompt_hash, self.target_hash


Records = Sequence[Record] | pa.Table  # rows, or the same as columns


def table(records: Records) -> pa.Table:
    """Records as columns, under SCHEMA."""
    return records if isinstance(records, pa.Table) else pa.Table.from_pylist([vars(record) for record in records], SCHEMA)


def has_choices(records: pa.Table) -> bool:
    """Whether a task's questions have choices. Else each has one: a continuation, or a whole text, that is scored as it is."""
    return len(records["choices"][0]) > 1


def is_text(records: pa.Table) -> bool:
    """Whether a task scores whole texts, of which there is a perplexity and no right or wrong."""
    return records["words"].null_count == 0


def rows(records: pa.Table) -> list[Record]:
    """Columns as rows."""
    return [Record(**row) for row in records.to_pylist()]


def cluster_of(doc: object, prompt_hash: str) -> str:
    """What a question shares with others, so that they are no independent evidence: a hash of its document's `cluster`, the
    passage, person or whatever the task's author names; else of its `passage`; else the hash of its prompt.
    """
    shared = (doc.get("cluster") or doc.get("passage")) if isinstance(doc, dict) else None
    return hash_json(shared) if shared else prompt_hash


def write(path: Path, records: Records, made_from: dict) -> None:
    """Write a Parquet file whole or not at all; `made_from` (model, quantizer, versions …) goes into its metadata."""
    metadata = {"bitsure": json.dumps(made_from, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        pq.write_table(table(records).replace_schema_metadata(metadata), temporary, compression="zstd")


def write_prompts(path: Path, rows: Sequence[Record], prompts: Sequence[str]) -> None:
    """Write what was asked, a row a question: task, doc_id, prompt."""
    columns = {"task": [row.task for row in rows], "doc_id": [row.doc_id for row in rows], "prompt": list(prompts)}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_prompts(path: Path) -> dict[tuple[str, int], str]:
    """Prompts by task and doc_id; none where there is no such file."""
    if not path.is_file():
        return {}
    found = pq.read_table(path).to_pydict()
    return dict(zip(zip(found["task"], found["doc_id"], strict=True), found["prompt"], strict=True))


def read(path: Path) -> tuple[pa.Table, dict]:
    """The records of a file and what made them. Raises UserError if it is cut short, no records file, or holds no numbers."""
    try:
        found = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as records ({error}); remove it and run again.") from error
    for name in ("cluster", "words", "bytes"):
        if name not in found.column_names:  # written before there was one
            found = found.append_column(name, pa.nulls(len(found), SCHEMA.field(name).type))
    if missing := set(SCHEMA.names) - set(found.column_names):
        raise UserError(f"{path} is no records file: it lacks the columns {', '.join(sorted(missing))}.")
    metadata = json.loads((found.schema.metadata or {}).get(b"bitsure", b"{}"))
    found = found.select(SCHEMA.names).replace_schema_metadata()
    check(found, str(path))
    return found, metadata


def check(records: pa.Table, where: str) -> None:
    """Raise UserError for rows that no confidence can be taken from, naming the first."""
    for name in ("task", "doc_id", "doc_hash", "prompt_hash", "target_hash", "choices", "gold", "choice_logprobs"):
        if records[name].null_count:
            raise UserError(f"{where}: {records[name].null_count} rows have no {name}.")
    if not len(records):
        raise UserError(f"{where} holds no questions.")
    lengths = {name: pc.list_value_length(records[name]) for name in ("choices", "gold", "choice_logprobs")}
    numbers, starts = flat(records, "choice_logprobs")
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers <= ROUNDING)))
    broken = np.zeros(len(records), dtype=bool)
    broken[np.searchsorted(starts, bad, side="right") - 1] = True
    gold, first = flat(records, "gold")
    owner = np.repeat(np.arange(len(records)), np.diff(first))
    outside = np.zeros(len(records), dtype=bool)
    outside[owner[(gold < 0) | (gold >= np.diff(starts)[owner])]] = True
    for wrong, said in (
        (pc.less(lengths["choices"], 1), "has no choices"),
        (_alone_in_its_task(records, lengths["choices"]), "has fewer than two choices, as others of the task have"),
        (pc.not_equal(lengths["choices"], lengths["choice_logprobs"]), "has not one log-probability a choice"),
        (pc.equal(lengths["gold"], 0), "has no right choice"),
        (pa.array(outside), "names a right choice that there is not"),
        (pa.array(broken), "has a log-probability that is not finite or above 0"),
    ):
        if pc.any(wrong).as_py():
            row = records.slice(pc.index(wrong, True).as_py(), 1).to_pylist()[0]
            raise UserError(
                f"{where}: task {row['task']}, question {row['doc_id']} {said}: {len(row['choices'])} choices, "
                f"choice_logprobs={row['choice_logprobs']}, gold={row['gold']}."
            )


def _alone_in_its_task(records: pa.Table, n_choices: pa.Array) -> pa.Array:
    """(n,) of bool: one choice in a task whose questions have more."""
    several = pc.unique(records["task"].filter(pc.greater(n_choices, 1)))
    return pc.and_(pc.equal(n_choices, 1), pc.is_in(records["task"], several))


def flat(records: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as one array, and where each row's list begins in it (the end of the last one added)."""
    column = records[name].combine_chunks()
    starts = column.offsets.to_numpy()
    return column.flatten().to_numpy(zero_copy_only=False), starts - starts[0]


@dataclass(frozen=True)
class Join:
    """The same questions of two runs, row by row, and what found no partner."""

    baseline: pa.Table
    quantized: pa.Table
    unmatched: pa.Table  # the quantized run's questions that the baseline does not have
    only_baseline: dict[str, int]  # task → rows
    only_quantized: dict[str, int]


IDENTITY = ("task", "doc_hash", "prompt_hash", "target_hash")


def join(baseline: Records, quantized: Records) -> Join:
    """Pair two runs by (task, doc_hash, prompt_hash, target_hash); doc_id breaks a tie of equal hashes.

    Pairs come in the quantized run's order. Raises UserError if nothing joins, saying what differs, and if a question has
    another number of choices in the other run.
    """
    full, quant = table(baseline), table(quantized)
    names, asked = _identities(full), _identities(quant)
    partners: dict[tuple, list[int]] = {}
    for i in reversed(_by_doc_id(full)):
        partners.setdefault(names[i], []).append(i)
    partner = {i: found.pop() for i in _by_doc_id(quant) if (found := partners.get(asked[i]))}
    matched = sorted(partner)
    if not matched:
        raise UserError(
            f"No question of the quantized run ({_described(quant)}) is in the baseline ({_described(full)}): "
            f"{_what_differs(full, quant)}"
        )
    left = Counter(name[0] for name, rest in partners.items() for _ in rest)
    unmatched = Counter(name[0] for i, name in enumerate(asked) if i not in partner)
    alone = quant.filter(pa.array([i not in partner for i in range(len(asked))]))
    joined = Join(full.take([partner[i] for i in matched]), quant.take(matched), alone, dict(left), dict(unmatched))
    gold = (pc.binary_join(pc.cast(side["gold"], pa.list_(pa.string())), ",") for side in (joined.baseline, joined.quantized))
    other = pc.not_equal(*gold)
    if pc.any(other).as_py():
        task, doc_id = (joined.quantized[name][pc.index(other, True).as_py()].as_py() for name in ("task", "doc_id"))
        raise UserError(f"task {task}, question {doc_id}: the two runs name different right choices for it.")
    unlike = pc.not_equal(*(pc.list_value_length(side["choice_logprobs"]) for side in (joined.baseline, joined.quantized)))
    if pc.any(unlike).as_py():
        task, doc_id = (joined.quantized[name][pc.index(unlike, True).as_py()].as_py() for name in ("task", "doc_id"))
        raise UserError(f"task {task}, question {doc_id}: the two runs scored different numbers of choices for it.")
    return joined


def by_task(records: Records) -> dict[str, pa.Table]:
    """The records of each task, in the order in which the tasks first come."""
    found = table(records)
    return {task: found.filter(pc.equal(found["task"], task)) for task in found["task"].unique().to_pylist()}


def _identities(records: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(records[name].to_pylist() for name in IDENTITY), strict=True))


def _by_doc_id(records: pa.Table) -> list[int]:
    return np.argsort(records["doc_id"].to_numpy(), kind="stable").tolist()


def _described(records: pa.Table) -> str:
    return f"tasks {sorted(set(records['task'].to_pylist()))}, {len(records)} rows"


def _what_differs(baseline: pa.Table, quantized: pa.Table) -> str:
    """The first part of the identity in which two runs have nothing in common."""
    means = {
        "task": "the tasks are others.",
        "doc_hash": "the documents are others: another data set or split, or another version of the harness's task.",
        "prompt_hash": "the prompts are others: few-shot examples, chat template or the harness's version differ.",
        "target_hash": "the targets are others: the task's answers were read in another way.",
    }
    for name, said in means.items():
        if not set(baseline[name].to_pylist()) & set(quantized[name].to_pylist()):
            return said
    return "their documents, prompts and targets do not go together in any row."
