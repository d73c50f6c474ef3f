"""Records read from what lm-evaluation-harness writes with --log_samples, so that anyone's past runs can be compared."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.records.record import Record, cluster_of, to_table
from bitsure.records.validity import check_records

FILE = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")
NEEDED = ("doc_id", "doc", "target", "arguments", "resps", "doc_hash", "prompt_hash", "target_hash")


def read_harness_log(directory: Path) -> tuple[pa.Table, dict[tuple[str, int], str]]:
    """Read every `samples_*.jsonl` of a directory.

    Returns:
        The records, without token counts and token log-probabilities, which such files do not have; and the prompts by task
        and doc_id.

    Raises:
        UserError: If a line cannot be read, a task has no choices, or the correct choice is unclear.
    """
    records: list[Record] = []
    prompts: dict[tuple[str, int], str] = {}
    # Of several files of a task the last one counts: names end with the time.
    files = {match["task"]: path for path in sorted(directory.glob("samples_*.jsonl")) if (match := FILE.fullmatch(path.name))}
    for task, path in files.items():
        # Not splitlines: prompts may hold other line ends.
        lines = path.read_text(errors="replace").rstrip("\n").split("\n")
        for number, line in enumerate(lines, 1):
            record, prompt = _record(task, line, f"{path}, line {number}")
            records.append(record)
            prompts[task, record.doc_id] = prompt
    if not records:
        raise UserError(
            f"{directory} holds no samples_*.jsonl with questions (lm-evaluation-harness writes them with --log_samples)."
        )
    table = to_table(records)
    check_records(table, str(directory))
    return table, prompts


def _record(task: str, line: str, where: str) -> tuple[Record, str]:
    """Return the record of a line, and its prompt."""
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is truncated or not JSON ({error}): the file is not whole. Write it again.") from error
    if missing := [key for key in NEEDED if key not in sample]:
        raise UserError(f"{where}: no {', '.join(missing)}; this is no sample of lm-evaluation-harness 0.4.")
    pairs = [_pair(arguments) for arguments in _values(sample["arguments"])]
    scores = _scores(sample["resps"], len(pairs), f"{where}: task {task}")
    # Where the contexts differ, the choices come first and the continuation is common to all.
    choices_first = len({context for context, _ in pairs}) > 1
    choices = [context if choices_first else continuation.removeprefix(" ") for context, continuation in pairs]
    record = Record(
        task=task,
        doc_id=int(sample["doc_id"]),
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=choices,
        gold=_gold(sample, choices, where),
        choice_logprobs=[logprob for logprob, _ in scores],
        choice_tokens=None,
        choice_greedy=[greedy for _, greedy in scores],
        token_logprobs=None,
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
    )
    return record, pairs[0][0]


def _scores(responses: list[Any], n_choices: int, where: str) -> list[tuple[float, bool]]:
    """Return each choice's log-likelihood and whether it is the greedy continuation."""
    scores = [response[0] if isinstance(response, list) else response for response in responses]
    if any(not isinstance(score, list | tuple) or len(score) != 2 for score in scores) or len(scores) != n_choices:
        raise UserError(f"{where} has no log-likelihoods of choices, which a confidence is computed from.")
    try:
        return [(float(logprob), str(greedy) == "True") for logprob, greedy in scores]
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a response is no log-likelihood ({error}).") from error


def _parsed_list(target: str) -> list[Any] | str:
    """Return the list that a text spells: the harness writes several correct choices in this way."""
    try:
        parsed = ast.literal_eval(target)
    except (ValueError, SyntaxError):
        return target
    return parsed if isinstance(parsed, list) else target


def _values(arguments: Any) -> list[Any]:
    return cast("list[Any]", list(arguments.values()) if isinstance(arguments, dict) else arguments)


def _pair(arguments: Any) -> tuple[str, str]:
    """Return a request's context and continuation."""
    context, continuation, *_ = (*_values(arguments), "", "")
    return _writable(context), _writable(continuation)


def _writable(text: Any) -> str:
    """Return text that can be written: half a surrogate pair cannot."""
    return str(text).encode("utf-8", "replace").decode()


def _gold(sample: dict[str, Any], choices: list[str], where: str) -> list[int]:
    """Return the indices of the correct choices.

    They are the document's labels where it has them (TruthfulQA's mc2), else the target, which is an index or a text.
    """
    labels = sample["doc"].get("mc2_targets", {}).get("labels") if isinstance(sample["doc"], dict) else None
    if labels and len(labels) == len(choices):
        return [i for i, label in enumerate(labels) if label]
    target = sample["target"]
    if isinstance(target, str) and target.startswith("["):
        target = _parsed_list(target)
    return [_index(answer, choices, where) for answer in (target if isinstance(target, list) else [target])]


def _index(answer: Any, choices: list[str], where: str) -> int:
    """Return the index of a correct answer; as in the harness, digits are an index before they are a choice's text."""
    text = str(answer).removeprefix(" ")
    if text.isdigit() and int(text) < len(choices):
        return int(text)
    if text in choices:
        return choices.index(text)
    raise UserError(f"{where}: the target {answer!r} is none of the choices {choices}.")
