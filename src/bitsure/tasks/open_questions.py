"""Tasks of open questions, made of a user's own file: nothing is right or wrong, and only two models' answers are compared.

A question has one turn or several, as MT-Bench's have two. A second turn is asked after the first and full precision's answer
to it, which another run wrote, so that all models continue the same dialogue.

Reference: Zheng et al. 2023 for MT-Bench.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.files import hash_file
from bitsure.config.open_settings import OpenSettings
from bitsure.records.directory_kinds import RECORDS
from bitsure.records.generations import read_generations
from bitsure.records.parquet import read_prompts
from bitsure.records.saved_run import BASELINE, generations_beside
from bitsure.tasks.protocols import Document

log = logging.getLogger(__name__)

FIRST, SECOND = "open_questions", "open_second_turns"
OPEN = (FIRST, SECOND)
VERSION = 1  # one more whenever our code would make other prompts of the same files
STOP = "\nQuestion:"  # what a model that is no chat model goes on with


def open_key(settings: OpenSettings) -> dict[str, object]:
    """Return what identifies the questions, for the key of their records."""
    return {"version": VERSION, "files": list(open_files(settings).values()), "longest": settings.longest}


def open_files(settings: OpenSettings) -> dict[str, str]:
    """Return the SHA-256 of the file of questions, and of that of first answers where they are given, by their paths."""
    files = [_file(settings), *([_answers_file(settings)] if settings.first_answers else [])]
    return {str(file): hash_file(file) for file in files}


def open_task(name: str, settings: OpenSettings) -> dict[str, Any]:
    """Return a task of OPEN as the harness reads it from YAML.

    Raises:
        UserError: If the file of questions, or the run with the first answers, is not given or cannot be read.
    """
    documents = open_documents(name, settings)

    def data_set(**_: object) -> dict[str, object]:  # the harness gives the settings' metadata
        from datasets import Dataset

        return {"test": Dataset.from_list(documents)}

    return {
        "task": name,
        "custom_dataset": data_set,
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "",
        "generation_kwargs": {"until": [STOP], "max_gen_toks": settings.longest, "do_sample": False},
        "metric_list": [],
        "metadata": {"version": VERSION},
    }


def open_documents(name: str, settings: OpenSettings) -> list[Document]:
    """Return the prompts of a task of OPEN; a second turn without a first answer is left out."""
    questions = _questions(_file(settings))
    if name == FIRST:
        return [{"prompt": _prompt(turns[0])} for turns in questions]
    answers = _first_answers(settings, questions)
    second = {i: turns for i, turns in enumerate(questions) if len(turns) > 1}
    dialogues = [
        f"{_prompt(turns[0])} {answers[i].strip()}\n\n{_prompt(turns[1])}" for i, turns in second.items() if i in answers
    ]
    if 0 < len(dialogues) < len(second):
        log.warning(
            "%s: %d of %d second turns are left out, since task.open.first_answers=%s has no answer to their first",
            name,
            len(second) - len(dialogues),
            len(second),
            settings.first_answers,
        )
    if not dialogues:
        raise UserError(
            f"task.open.file={settings.file}: no question has a second turn whose first was answered in "
            f"task.open.first_answers={settings.first_answers}. Ask for {FIRST} alone."
        )
    return [{"prompt": dialogue} for dialogue in dialogues]


def _file(settings: OpenSettings) -> Path:
    if settings.file is None or not (file := Path(settings.file)).is_file():
        given = "no file is given" if settings.file is None else f"{settings.file}: no such file"
        raise UserError(
            f'task.open.file: {given}. Give JSON lines such as {{"turns": ["Who are you?", "Since when?"]}}; those of MT-Bench '
            "(question.jsonl of FastChat) are such."
        )
    return file


def _questions(file: Path) -> list[list[str]]:
    """Return the turns of each question."""
    questions = []
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would also split at U+2028 inside texts
    except UnicodeDecodeError as error:
        raise UserError(f"task.open.file={file}: it is not in UTF-8 ({error}). Save it in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            match json.loads(line):
                case {"turns": [str(), *_] as turns} if all(isinstance(turn, str) and turn.strip() for turn in turns):
                    questions.append(turns)
                    continue
        except (ValueError, RecursionError):
            pass
        raise UserError(f'{file}, line {number}: each line must be JSON with `turns`, a list of texts: {{"turns": ["…"]}}.')
    if not questions:
        raise UserError(f'{file} is empty: each line must be JSON with `turns`, a list of texts: {{"turns": ["…"]}}.')
    return questions


def _prompt(turn: str) -> str:
    return f"Question: {turn.strip()}\nAnswer:"


def _answers_file(settings: OpenSettings) -> Path:
    """Return the file with the answers that full precision wrote in the run of the first turns."""
    if settings.first_answers is None:
        raise UserError(
            "task.open.first_answers: no run is given. Give the directory of one with task=open_questions: its full precision "
            "answered the first turns."
        )
    run = Path(settings.first_answers)
    file = next((file for name in (BASELINE, RECORDS) if (file := generations_beside(run / name)).is_file()), None)
    if file is None:
        raise UserError(
            f"task.open.first_answers={run}: this is no run with task=open_questions: it has no generations.parquet."
        )
    return file


def _first_answers(settings: OpenSettings, questions: list[list[str]]) -> dict[int, str]:
    """Return full precision's answers to first turns, by the questions' numbers from 0."""
    file = _answers_file(settings)
    rows = read_generations(file)[0].select(["task", "doc_id", "sample", "text"]).to_pylist()
    answers = {row["doc_id"]: row["text"] for row in rows if row["task"] == FIRST and row["sample"] == 0}
    prompts = read_prompts(file.with_name("prompts.parquet"))
    if any(i >= len(questions) or _prompt(questions[i][0]) not in prompts.get((FIRST, i), "") for i in answers):
        raise UserError(
            f"task.open.first_answers={settings.first_answers}: that run was asked other questions than those of "
            f"task.open.file={settings.file}. Give the file that it was asked."
        )
    return answers
