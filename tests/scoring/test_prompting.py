"""A chat template that is endless, explodes or refuses is one sentence before weights are loaded."""

from __future__ import annotations

import pytest

from bitsure.base import rendering
from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.scoring.prompting import check_prompting
from tests.builders.tokenizers import byte_tokenizer

CHAT = TaskSettings(name="own", names=["t"], chat_template=True)
NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (NESTED, "it computes for more than 0.2 seconds"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
        ("{{ 10**(10**9) }}", "its numbers have more than 4,300 digits"),
        ("{{ 'x' * 10**7 }}", "it makes 10,000,000 characters"),
        ("{{ raise_exception('roles must alternate') }}", "the turns user: roles must alternate"),
    ],
)
def test_a_template_without_a_text_is_one_sentence(monkeypatch, template, why):
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=rf"the chat template of this model's tokenizer cannot be rendered.* {why}"):
        check_prompting(tokenizer, CHAT)


def test_an_ordinary_template_is_accepted():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    check_prompting(tokenizer, CHAT)
