"""Records read from what lm-evaluation-harness writes with --log_samples, so that anyone's past runs can be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.records.directory_kinds import LOGS
from bitsure.records.log_gold import right_choices
from bitsure.records.log_lines import LoggedQuestion, read_line
from bitsure.records.record import Record, place_of, to_table
from bitsure.records.validity import check_records, without_repeats

FILE = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")


def read_harness_log(directory: Path) -> tuple[pa.Table, dict[tuple[str, int], str]]:
    """Read every `samples_*.jsonl` of a directory.

    Returns:
        The records, without token counts and token log-probabilities, which such files do not have; and the prompts by task
        and doc_id.

    Raises:
        UserError: If a line cannot be read, a task generates text, or the right choice is unclear.
    """
    records: list[Record] = []
    prompts: dict[tuple[str, int], str] = {}
    # Of several files of a task the last one counts: names end with the time.
    files = {match["task"]: path for path in sorted(directory.glob(LOGS)) if (match := FILE.fullmatch(path.name))}
    for task, path in files.items():
        questions = _questions(task, path)
        golds = right_choices(task, questions)
        records += [_record(task, question, gold) for question, gold in zip(questions, golds, strict=True)]
        prompts |= {(task, question.doc_id): question.prompt for question in questions}
    if not records:
        raise UserError(
            f"{directory} holds no samples_*.jsonl with questions (lm-evaluation-harness writes them with --log_samples)."
        )
    table = to_table(records)
    check_records(table, str(directory))
    return without_repeats(table, str(directory)), prompts


def _questions(task: str, path: Path) -> list[LoggedQuestion]:
    """Return the questions of a file. Of several filters, each of which writes every question, the first counts."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    # Not splitlines: prompts may hold other line ends.
    lines = text.rstrip("\n").split("\n")
    questions = [read_line(task, line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    return [question for question in questions if question.sample.get("filter") == questions[0].sample.get("filter")]


def _record(task: str, question: LoggedQuestion, gold: list[int]) -> Record:
    sample = question.sample
    length, depth = place_of(sample["doc"])
    words, n_bytes = _lengths(question) if question.is_text else (None, None)
    return Record(
        task=task,
        doc_id=question.doc_id,
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=question.choices,
        gold=gold,
        choice_logprobs=[logprob for logprob, _ in question.scores],
        choice_tokens=None,
        choice_greedy=[greedy for _, greedy in question.scores],
        token_logprobs=None,
        cluster=question.cluster,
        words=words,
        bytes=n_bytes,
        length=length,
        depth=depth,
    )


def _lengths(question: LoggedQuestion) -> tuple[int, int]:
    """Return a text's words and bytes as its task counts them, else as they stand in the log."""
    pairs = [question.sample.get(metric) for metric in ("word_perplexity", "byte_perplexity")]
    counted = [pair[1] if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int) else 0 for pair in pairs]
    text = question.choices[0]
    return counted[0] or len(text.split()), counted[1] or len(text.encode())
