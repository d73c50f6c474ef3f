"""The file of a prompt is noted with the task's files; what is wrong with a prompt is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.base.opened_files import opened_files
from bitsure.tasks.prompt_files import read_prompt


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.yaml"
    file.write_text("prompts: {p: {doc_to_text: 'Q {{q}}', doc_to_target: ' {{a}}'}, half: {doc_to_text: a}, text: abc}\n")
    return file


def test_the_file_of_a_prompt_is_among_those_that_were_read(prompts):
    with opened_files() as places:
        prompt = read_prompt(f"{prompts}:p")
    assert places == {prompts} and prompt.apply({"q": "1 + 1", "a": "2"}) == ["Q 1 + 1", " 2"]
    with pytest.raises(UserError, match="p' has no choices, which a multiple_choice task needs"):
        prompt.get_answer_choices_list({})


@pytest.mark.parametrize("name", ["none", "half", "text", "p:p"])
def test_a_file_without_the_prompt_is_named(prompts, name):
    with pytest.raises(UserError, match=rf"use_prompt: '{prompts}:{name}' names no prompt .* doc_to_text and doc_to_target"):
        read_prompt(f"{prompts}:{name}")


@pytest.mark.parametrize("use_prompt", [False, ["a"], "qa-basic", "qa-basic:no", "/no/such.yaml:p"])
def test_what_names_no_prompt_is_one_sentence(use_prompt):
    with pytest.raises(UserError, match=r"names no prompt \(.*or is one of qa-basic:question-newline-answer"):
        read_prompt(use_prompt)
