"""Two runs are compared on the same questions only, and a mismatch is an error that says what differs."""

from __future__ import annotations

import dataclasses

import pytest

from bitsure.base.errors import UserError
from bitsure.records.joining import join
from tests.builders.records import record


def ids(joined):
    return list(zip(*(side["doc_id"].to_pylist() for side in (joined.baseline, joined.quantized)), strict=True))


@pytest.mark.parametrize("column, message", [("doc_hash", "the documents differ"), ("prompt_hash", "the prompts differ")])
def test_nothing_joined_says_what_differs(column, message):
    full = [record([-1, -2], doc_id=i) for i in range(3)]
    with pytest.raises(UserError, match=message):
        join(full, [dataclasses.replace(row, **{column: "other"}) for row in full])


def test_another_number_of_choices_for_the_same_question_is_an_error():
    with pytest.raises(UserError, match="question 5: the two runs scored different numbers"):
        join([record([-1, -2], doc_id=5)], [record([-1, -2, -3], doc_id=5)])


def test_join_pairs_by_hashes_and_not_by_position():
    full = [record([-1, -2], doc_id=i) for i in (0, 1, 2)]
    quant = [record([-1, -3], doc_id=i) for i in (2, 1, 7)]
    joined = join(full, quant)
    assert ids(joined) == [(2, 2), (1, 1)]
    assert joined.only_baseline == {"t": 1} and joined.only_quantized == {"t": 1}


def test_equal_hashes_are_paired_in_the_order_of_doc_id():
    same = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}
    full = [record([-1, -2], doc_id=i, **same) for i in (5, 3)]
    quant = [record([-1, -2], doc_id=i, **same) for i in (3, 5)]
    assert ids(join(full, quant)) == [(3, 3), (5, 5)]


def test_nothing_joined_is_an_error():
    with pytest.raises(UserError, match="is in the baseline"):
        join([record([-1, -2], doc_id=1)], [record([-1, -2], doc_id=2)])


def test_the_same_question_of_another_task_does_not_join():
    full, quant = [record([-1, -2], task="a"), record([-1, -2])], [record([-1, -2], task="b"), record([-1, -2])]
    joined = join(full, quant)
    assert len(joined.quantized) == 1 and joined.only_baseline == {"a": 1} and joined.only_quantized == {"b": 1}


def test_choices_in_another_order_or_wording_are_another_question(caplog):
    full = [record([-1, -2], doc_id=i, choices=["cat", "dog"]) for i in range(3)]
    other = [["cat", "dog"], ["dog", "cat"], ["cat", "cow"]]
    joined = join(full, [record([-1, -2], doc_id=i, choices=choices) for i, choices in enumerate(other)])
    assert ids(joined) == [(0, 0)] and joined.only_baseline == joined.only_quantized == {"t": 2}
    assert "2 questions have the same document, prompt and target but other choices" in caplog.text
    assert "task t, question 1: ['cat', 'dog'] and ['dog', 'cat']" in caplog.text


def test_where_all_choices_differ_the_message_shows_them():
    with pytest.raises(UserError, match=r"other choices.*\['a', 'b'\] and \['b', 'a'\]"):
        join([record([-1, -2], choices=["a", "b"])], [record([-1, -2], choices=["b", "a"])])


def test_space_before_a_choice_is_the_delimiter():
    joined = join([record([-1, -2], choices=["a", "b"])], [record([-1, -2], choices=["\na", " b"])])
    assert len(joined.quantized) == 1
