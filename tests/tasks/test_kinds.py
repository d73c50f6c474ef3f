"""Each kind of task checks its records against the numbers that the harness took."""

from __future__ import annotations

import math

import pytest

from bitsure.base.errors import UserError
from bitsure.tasks.gold import TRUTHFULQA_MC2
from bitsure.tasks.kinds import Continuation, MultipleChoice, WholeText
from tests.builders.records import record


@pytest.mark.parametrize(
    ("kind", "row", "agrees", "differs"),
    [
        (MultipleChoice(), record([-1, -2], gold=0), {"acc": 1.0}, {"acc": 0.0}),
        (MultipleChoice(), record([-2, -1], gold=0), {"acc": 0.0}, {"acc": 1.0}),
        (  # its accuracy is the probability of the right choices
            MultipleChoice(),
            record([math.log(0.2), math.log(0.5), math.log(0.3)], gold=[0, 2], task=TRUTHFULQA_MC2),
            {"acc": 0.5},
            {"acc": 0.5001},
        ),
        (Continuation(), record([-1]), {"acc": 0.0}, {"acc": 1.0}),
        (WholeText(), record([-7], words=3, bytes=9), {"word_perplexity": (-7, 3)}, {"word_perplexity": (-7.1, 3)}),
    ],
)
def test_a_disagreement_with_the_harness_is_an_error(kind, row, agrees, differs):
    kind.check_agreement(row, agrees)
    with pytest.raises(UserError, match=r"the harness's (acc|log-likelihood) is .*no number of it is reported"):
        kind.check_agreement(row, differs)


def test_questions_of_a_task_without_an_accuracy_are_not_checked():
    MultipleChoice().check_agreement(record([-1, -2]), {})
    assert not MultipleChoice().has_check({}) and WholeText().has_check({})
