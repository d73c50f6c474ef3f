"""The right choices of a question, as the harness's own accuracy reads a task's target."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.tasks.gold import right_choices


class Task:
    """A task whose target and text stand in the document."""

    multiple_input, DATASET_PATH = 0, "some/data"

    def doc_to_target(self, doc):
        return doc["target"]

    def doc_to_text(self, doc):
        return doc["text"]


def gold(target, task=None, **doc):
    return right_choices("t", task or Task(), {"target": target, **doc}, ["a", "b", "7"])


@pytest.mark.parametrize(
    ("target", "expected"), [(1, [1]), ("b", [1]), ("7", [2]), ("0", [0]), ([0, 2], [0, 2]), (np.int32(2), [2])]
)
def test_a_target_is_an_index_its_digits_a_choice_or_several(target, expected):
    assert gold(target) == expected


@pytest.mark.parametrize("target", ["c", 3, -1, 0.5, None, [], ["a", "c"], "²", "٢"])
def test_any_other_target_is_an_error_that_names_the_columns(target):
    with pytest.raises(UserError, match=r"is none of the 3 choices .* has the columns target"):
        gold(target)


def test_where_choices_stand_before_one_ending_the_text_has_the_index():
    task = Task()
    task.multiple_input = 3
    assert gold("the common ending", task, text=1) == [1]


def test_all_ways_to_say_that_the_answer_is_not_known_are_right_in_bbq():
    task = Task()
    task.DATASET_PATH = "oskarvanderwal/bbq"
    answers = ["she", "he", *(f"unknown {i}" for i in range(10))]
    assert right_choices("bbq", task, {"target": 1}, answers) == [1]
    assert right_choices("bbq", task, {"target": 2}, answers) == list(range(2, 12))
