"""Questions of finding something: what they say of themselves is so, and each is the same whatever else is asked."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.retrieval_settings import RetrievalSettings
from bitsure.tasks.retrieval_tasks import KINDS, retrieval_documents

SETTINGS = RetrievalSettings(lengths=[300, 600], depths=[0.0, 0.5, 1.0], questions=2)


@pytest.mark.parametrize("name", KINDS)
def test_texts_have_their_length_and_the_answer_at_its_depth_among_choices_of_the_same_text(name):
    questions = retrieval_documents(name, SETTINGS, 1234)
    assert len(questions) == 12 and len({question["text"] for question in questions}) == 12
    for question in questions:
        assert len(question["text"].split()) == pytest.approx(question["length"], rel=0.3)
        assert len(set(question["choices"])) == 4 and all(choice in question["text"] for choice in question["choices"])
        answer = question["choices"][question["label"]]
        lines = question["text"].replace(". ", ".\n").splitlines()
        key = question["question"].split("?")[0].removeprefix("What is ").removeprefix("the word of ").removeprefix("the ")
        told = [i for i, line in enumerate(lines) if key.removesuffix(" known for") in line and answer in line]
        assert len(told) == 1
        assert told[0] / (len(lines) - 1) == pytest.approx(question["depth"], abs=0.12)
    assert {(q["length"], q["depth"]) for q in questions[:6]} == {(n, d) for n in (300, 600) for d in (0.0, 0.5, 1.0)}


@pytest.mark.parametrize("name", KINDS)
def test_how_often_a_value_stands_in_the_text_does_not_tell_the_right_one(name):
    for question in retrieval_documents(name, RetrievalSettings(lengths=[200, 2000], depths=[0.3], questions=3), 1):
        words = question["text"].replace(".", " ").split()
        assert [words.count(choice) for choice in question["choices"]] == [1, 1, 1, 1]


def test_a_question_is_the_same_whatever_else_is_asked_and_another_with_another_seed():
    more = RetrievalSettings(lengths=[250, 600], depths=[0.5, 0.75], questions=3)
    [first] = [q for q in retrieval_documents("retrieval_pairs", SETTINGS, 1)[:6] if (q["length"], q["depth"]) == (600, 0.5)]
    assert first in retrieval_documents("retrieval_pairs", more, 1)
    assert first not in retrieval_documents("retrieval_pairs", more, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [50]}, r"task\.retrieval\.lengths=\[50\]: each must be 100 to 500,000 words\."),
        ({"lengths": [200, 200]}, r"lengths=\[200, 200\]: give one value or more, each once\."),
        ({"depths": [1.5]}, r"depths=\[1\.5\]: each must be from 0, the beginning, to 1, the end\."),
        ({"depths": []}, r"depths=\[\]: give one value or more"),
        ({"questions": 0}, r"task\.retrieval\.questions=0"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        RetrievalSettings(**given)
