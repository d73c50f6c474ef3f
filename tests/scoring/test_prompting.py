"""A chat template that refuses, or meets a limit of rendering, is one sentence before weights are loaded."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.scoring.prompting import check_prompting
from tests.builders.tokenizers import byte_tokenizer

CHAT = TaskSettings(name="own", names=["t"], chat_template=True)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 'x' * 10**7 }}", "it makes 10,000,000 characters"),
        ("{{ raise_exception('roles must alternate') }}", "the turns user: roles must alternate"),
    ],
)
def test_a_template_without_a_text_is_one_sentence(template, why):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=rf"the chat template of this model's tokenizer cannot be rendered.* {why}"):
        check_prompting(tokenizer, CHAT)


def test_an_ordinary_template_is_accepted():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    check_prompting(tokenizer, CHAT)
