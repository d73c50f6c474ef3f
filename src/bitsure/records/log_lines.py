"""One line of lm-evaluation-harness's sample logs: what was scored, without the decision which choice is right."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from bitsure.base.errors import UserError
from bitsure.records.record import cluster_of

HASHES = ("doc_hash", "prompt_hash", "target_hash")
NEEDED = ("doc_id", "doc", "target", "arguments", "resps", *HASHES)
LARGEST_ID = 2**63 - 1  # records keep a doc_id in 64 bits
BETWEEN_EXAMPLES = "\n\n"  # the harness's own separator of few-shot examples

Score = tuple[float, bool]  # log-likelihood in nats, and whether every token is the most likely one
Gold = list[int]  # indices of the right choices


@dataclass(frozen=True)
class LoggedQuestion:
    """One document of a log, as it was scored."""

    where: str
    """File and line, for error messages."""
    sample: dict[str, Any]
    """The line itself."""
    doc_id: int
    prompt: str
    """What stands before the first choice; empty before a whole text."""
    choices: list[str]
    """The choices without the delimiter before them; of a continuation or a whole text, that alone."""
    scores: list[Score]
    """One for each choice."""
    unconditional: list[Score] = field(default_factory=list)
    """The same without the prompt, which acc_mutual_info asks for; empty where it was not asked."""
    common_ending: str | None = None
    """The continuation that all choices stand before, as in winogrande; None where choices are continuations."""
    is_text: bool = False
    """Whether the log-likelihood is that of a whole text."""

    @property
    def best(self) -> int:
        """The index of the most likely choice; of equal ones the first, as in the harness."""
        return max(range(len(self.scores)), key=lambda i: self.scores[i][0])

    @property
    def cluster(self) -> str:
        """The cluster of the question."""
        return cluster_of(self.sample["doc"], self.sample["prompt_hash"])


def read_line(task: str, line: str, where: str) -> LoggedQuestion:
    """Read one line of a log.

    Args:
        task: The task's name.
        line: The line, JSON.
        where: File and line number, for error messages.

    Raises:
        UserError: If the line is no sample of the harness, or has no log-likelihoods that a confidence is computed from.
    """
    sample = _sample(line, where)
    requests = [_texts_of(arguments, where) for arguments in _values(sample["arguments"], where)]
    if not requests:
        raise UserError(f"{where}: no requests (arguments is empty).")
    responses = [_first_response(response, where) for response in _list(sample["resps"], "resps", where)]
    if _is_generation(requests, responses):
        raise UserError(
            f"{where}: task {task} generated text (generate_until), which has no log-likelihoods of choices to compute a "
            "confidence from. Move this file elsewhere to report the other tasks."
        )
    if len(responses) != len(requests):
        raise UserError(f"{where}: {len(requests)} requests and {len(responses)} responses; each request has one.")
    doc_id = _doc_id(sample["doc_id"], where)
    if all(len(request) == 1 for request in requests):
        return _whole_text(sample, doc_id, requests, responses, where)
    scores = [_score(response, f"{where}: task {task}") for response in responses]
    return _question(sample, doc_id, [(request[0], request[1]) for request in requests], scores, where)


def _whole_text(
    sample: dict[str, Any], doc_id: int, requests: list[list[str]], responses: list[Any], where: str
) -> LoggedQuestion:
    if len(requests) != 1:
        raise UserError(f"{where}: {len(requests)} whole texts were scored of one document; bitsure reads one.")
    score = (_number(responses[0], where), False)  # the log does not say whether its tokens are the most likely ones
    return LoggedQuestion(where, sample, doc_id, "", [requests[0][0].removeprefix(" ")], [score], is_text=True)


def _question(
    sample: dict[str, Any], doc_id: int, requests: list[tuple[str, str]], scores: list[Score], where: str
) -> LoggedQuestion:
    n = _number_of_choices(sample, requests, where)
    contexts, continuations = [context for context, _ in requests[:n]], [continuation for _, continuation in requests[:n]]
    if len(set(contexts)) > 1 and len(set(continuations)) > 1:
        raise UserError(
            f"{where}: neither the prompt nor the continuation is common to all requests; what the choices are is unclear."
        )
    ending = continuations[0] if len(set(contexts)) > 1 else None
    if ending is None:
        choices = [continuation.removeprefix(" ") for continuation in continuations]
    elif len(requests) > n:  # the unconditional requests are the choices themselves
        choices = [continuation.removeprefix(" ") for _, continuation in requests[n:]]
    else:
        choices = _without_examples(contexts)
    return LoggedQuestion(where, sample, doc_id, contexts[0], choices, scores[:n], scores[n:], ending)


def _number_of_choices(sample: dict[str, Any], requests: list[tuple[str, str]], where: str) -> int:
    """Return how many of the requests are choices; acc_mutual_info repeats each without the prompt after them.

    Raises:
        UserError: If requests without a prompt stand among others in another way.
    """
    half, odd = divmod(len(requests), 2)
    with_prompt, without = requests[:half], requests[half:]
    repeated = not odd and not any(context for context, _ in without)
    endings, repeats = ([continuation for _, continuation in part] for part in (with_prompt, without))
    # Where the choices stand before a common ending, the repeats are the choices and not the ending.
    repeated = repeated and (endings == repeats or (half > 1 and len(set(endings)) == 1 and len(set(repeats)) > 1))
    asked = "acc_mutual_info" in _metrics(sample)
    prompts = {bool(context) for context, _ in requests}
    if repeated and (asked or len(prompts) == 2):
        return half
    if asked or repeated or len(prompts) == 2:
        raise UserError(
            f"{where}: {len(requests)} requests, some without a prompt, are not choices followed by the same choices without "
            "the prompt (acc_mutual_info); which of them are choices is unclear."
        )
    return len(requests)


def _without_examples(contexts: list[str]) -> list[str]:
    """Return what differs between contexts, with the paragraph that it stands in: examples before it are the same in all."""
    shortest = min(map(len, contexts))
    common = next((i for i in range(shortest) if len({context[i] for context in contexts}) > 1), shortest)
    start = contexts[0].rfind(BETWEEN_EXAMPLES, 0, common)
    return contexts if start < 0 else [context[start + len(BETWEEN_EXAMPLES) :] for context in contexts]


def _sample(line: str, where: str) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except RecursionError as error:
        raise UserError(f"{where}: the JSON is nested too deeply to be read.") from error
    except ValueError as error:
        raise UserError(f"{where} is truncated or not JSON ({error}): the file is not whole. Write it again.") from error
    if not isinstance(sample, dict):
        raise UserError(f"{where}: a {type(sample).__name__}, not an object; this is no sample of lm-evaluation-harness 0.4.")
    if missing := [key for key in NEEDED if key not in sample]:
        raise UserError(f"{where}: no {', '.join(missing)}; this is no sample of lm-evaluation-harness 0.4.")
    for key in HASHES:
        if not isinstance(sample[key], str) or not sample[key].isascii():
            raise UserError(f"{where}: {key} is {_shown(sample[key])}; it must be a hash, a text in ASCII.")
    return cast("dict[str, Any]", sample)


def _doc_id(value: object, where: str) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID:
        return value
    raise UserError(f"{where}: doc_id is {_shown(value)}; it must be a whole number, which names the question.")


def _values(arguments: Any, where: str) -> list[Any]:
    """Return the values of `gen_args_0`, `gen_args_1`, … by their numbers."""
    if isinstance(arguments, dict):  # where keys were sorted as text, 10 stands before 2
        numbers = {key: int(match[0]) if (match := re.search(r"\d{1,9}$", key)) else -1 for key in arguments}
        return [arguments[key] for key in sorted(arguments, key=numbers.__getitem__)]
    return _list(arguments, "arguments", where)


def _list(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: {name} is {_shown(value)}; it must be a list.")
    return value


def _texts_of(arguments: Any, where: str) -> list[Any]:
    """Return a request's context and continuation, or its text; the settings of a generation stay a dict."""
    values = _values(arguments, where)[:2]  # images or sounds stand after these
    if not values or values[0] is None or (len(values) == 2 and values[1] is None):
        raise UserError(f"{where}: a request is {_shown(arguments)}; it must have a context and a continuation, or a text.")
    return [value if isinstance(value, dict) else _writable(value) for value in values]


def _first_response(response: Any, where: str) -> Any:
    """Return the first of a request's responses: repeats of a log-likelihood are the same."""
    if isinstance(response, list) and not response:
        raise UserError(f"{where}: a request has no response.")
    return response[0] if isinstance(response, list) else response


def _is_generation(requests: list[list[Any]], responses: list[Any]) -> bool:
    return any(len(request) == 2 and isinstance(request[1], dict) for request in requests) or any(
        isinstance(response, str) and len(request) == 2 for request, response in zip(requests, responses, strict=False)
    )


def _score(response: Any, where: str) -> Score:
    if not isinstance(response, list) or len(response) != 2:
        raise UserError(f"{where} has no log-likelihoods of choices, which a confidence is computed from.")
    return _number(response[0], where), str(response[1]) == "True"


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: a response is no log-likelihood ({error}).") from error


def _metrics(sample: dict[str, Any]) -> set[str]:
    named = sample.get("metrics")
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else sample.keys() & {"acc_mutual_info"}


def _writable(text: Any) -> str:
    """Return text that can be written: half a surrogate pair cannot."""
    return str(text).encode("utf-8", "replace").decode()


def _shown(value: object) -> str:
    """Return a value for an error message, cut to a readable length."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}…"
