"""A text in which something is to be found must fit into the model's context: what is cut off cannot be found."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings
from bitsure.config.paths import project_path
from bitsure.config.retrieval_settings import RetrievalSettings
from bitsure.config.schema import TaskSettings
from bitsure.models.locate import locate_model


def check(lengths, num_fewshot=None):
    from bitsure.scoring.searched_texts import check_searched_texts
    from bitsure.tasks.harness_tasks import load_tasks

    found = RetrievalSettings(lengths=lengths, depths=[0.5], questions=2)
    task = TaskSettings(name="own", names=["retrieval_passkey"], num_fewshot=num_fewshot, retrieval=found)
    source = locate_model(ModelSettings(path=str(project_path("pocket/models/pocket-300k"))), None)
    check_searched_texts(load_tasks(task, task.names, None), task, source)


def test_a_question_longer_than_the_context_is_refused_in_one_sentence_before_weights_are_loaded():
    check([100])  # some 400 of 640 tokens
    with pytest.raises(UserError, match=r"retrieval_passkey: a question of \d+ words has [\d,]+ tokens.*context 640.*lengths"):
        check([100, 400])


def test_examples_count():
    with pytest.raises(UserError, match="what is to be found would be cut off"):
        check([100], num_fewshot=1)
