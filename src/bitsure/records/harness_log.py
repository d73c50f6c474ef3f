"""What lm-evaluation-harness wrote with --log_samples, read as records, so that anyone's past runs can be compared."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.records.table import Record, check, cluster_of, table

FILE = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")
NEEDED = ("doc_id", "doc", "target", "arguments", "resps", "doc_hash", "prompt_hash", "target_hash")


def read(directory: Path) -> tuple[list[Record], dict[tuple[str, int], str]]:
    """The records of every `samples_*.jsonl` in a directory, and the prompts by task and doc_id.

    Tokens are not in such a file, so there are no per-token numbers. Raises UserError for a line that cannot be read, for
    tasks without choices, and where the right choice cannot be told.
    """
    found: list[Record] = []
    prompts: dict[tuple[str, int], str] = {}
    files = {match["task"]: path for path in sorted(directory.glob("samples_*.jsonl")) if (match := FILE.fullmatch(path.name))}
    for task, path in files.items():  # the last one of a task: names end with the time
        lines = path.read_text(errors="replace").rstrip("\n").split("\n")  # not splitlines: prompts hold other line ends
        for number, line in enumerate(lines, 1):
            record, prompt = _record(task, line, f"{path}, line {number}")
            found.append(record)
            prompts[task, record.doc_id] = prompt
    if not found:
        raise UserError(
            f"{directory} holds no samples_*.jsonl with questions (lm-evaluation-harness writes them with --log_samples)."
        )
    check(table(found), str(directory))
    return found, prompts


def _record(task: str, line: str, where: str) -> tuple[Record, str]:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is cut short or no JSON ({error}): the file is not whole. Write it again.") from error
    if missing := [key for key in NEEDED if key not in sample]:
        raise UserError(f"{where}: no {', '.join(missing)}; this is no sample of lm-evaluation-harness 0.4.")
    pairs = [_pair(arguments) for arguments in _values(sample["arguments"])]
    scores = [resp[0] if isinstance(resp, list) else resp for resp in sample["resps"]]
    if any(not isinstance(score, list | tuple) or len(score) != 2 for score in scores) or len(scores) != len(pairs):
        raise UserError(f"{where}: task {task} has no log-likelihoods of choices to take a confidence from.")
    try:
        numbers = [(float(logprob), str(greedy) == "True") for logprob, greedy in scores]
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a response is no log-likelihood ({error}).") from error
    varies = len({context for context, _ in pairs}) > 1  # the choices stand before one common ending
    choices = [context if varies else continuation.removeprefix(" ") for context, continuation in pairs]
    record = Record(
        task=task,
        doc_id=int(sample["doc_id"]),
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=choices,
        gold=_gold(sample, choices, where),
        choice_logprobs=[logprob for logprob, _ in numbers],
        choice_tokens=None,
        choice_greedy=[greedy for _, greedy in numbers],
        token_logprobs=None,
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
    )
    return record, pairs[0][0]


def _list(target: str) -> list | str:
    """The harness writes several right choices as the text of a list."""
    try:
        found = ast.literal_eval(target)
    except (ValueError, SyntaxError):
        return target
    return found if isinstance(found, list) else target


def _values(arguments: Any) -> list:
    return list(arguments.values()) if isinstance(arguments, dict) else arguments


def _pair(arguments: Any) -> tuple[str, str]:
    context, continuation, *_ = (*_values(arguments), "", "")
    return _clean(context), _clean(continuation)


def _clean(text: Any) -> str:
    """Text that can be written: half a surrogate pair cannot."""
    return str(text).encode("utf-8", "replace").decode()


def _gold(sample: dict, choices: list[str], where: str) -> list[int]:
    """The right choices: labels of the document where it has them (TruthfulQA's mc2), else the target, an index or a text."""
    labels = sample["doc"].get("mc2_targets", {}).get("labels") if isinstance(sample["doc"], dict) else None
    if labels and len(labels) == len(choices):
        return [i for i, label in enumerate(labels) if label]
    target = sample["target"]
    if isinstance(target, str) and target.startswith("["):
        target = _list(target)
    gold = []
    for one in target if isinstance(target, list) else [target]:
        text = str(one).removeprefix(" ")
        if text.isdigit() and int(text) < len(choices):  # the harness takes digits for an index before anything else
            gold.append(int(text))
        elif text in choices:
            gold.append(choices.index(text))
        else:
            raise UserError(f"{where}: the target {one!r} is none of the choices {choices}.")
    return gold
