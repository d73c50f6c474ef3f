"""Models that llama.cpp would compute otherwise are not written."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.models.gguf.write_gguf import architecture_of
from tests.builders.marks import needs_transformers_5

pytestmark = needs_transformers_5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, r"MLPs have no biases.*mlp_bias"),
        ({"hidden_act": "gelu"}, "silu, and this model's is gelu"),
    ],
)
def test_a_setting_that_the_format_has_no_place_for_is_refused(setting, message):
    from transformers import LlamaConfig

    assert architecture_of(LlamaConfig()) == "llama"
    with pytest.raises(UserError, match=message):
        architecture_of(LlamaConfig(**setting))
