"""Logits from the states before a model's head, whatever its family does before or after it."""

from __future__ import annotations

import pytest
import torch
import transformers

from bitsure.scoring.local.logits_from_states import logits_of, remove_blocks
from bitsure.scoring.texts.head_states import head_states, whole_logits, why_not_from_states

SIZE = {"vocab_size": 97, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SIZE |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
IDS = torch.arange(12).view(2, 6) * 7 % 97
ALL = torch.arange(IDS.numel())
ROWS = torch.tensor([1, 2, 3, 7, 8])
ROUNDING = 1e-6  # of float32: some units of 2⁻²³, as a share of the largest logit
CONFIGS = {
    "a soft cap": transformers.Gemma2Config(**SIZE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5),
    "a factor": transformers.CohereConfig(**SIZE, num_key_value_heads=2, logit_scale=0.25),
    "a divisor": transformers.GraniteConfig(**SIZE, num_key_value_heads=2, logits_scaling=8.0),
    "a projection before the head": transformers.OPTConfig(
        **{name: value for name, value in SIZE.items() if name != "intermediate_size"},
        ffn_dim=32,
        word_embed_proj_dim=8,
        do_layer_norm_before=False,
        max_position_embeddings=32,
    ),
}


def made(config) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5 if weight.dim() > 1 else 1)
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_states_give_the_very_logits_of_a_plain_pass_again(kind):
    model = made(CONFIGS[kind])
    assert why_not_from_states(model, IDS[:1]) is None
    expected, states = whole_logits(model, IDS, ALL), head_states(model, IDS, ALL)
    assert states.shape[1] < expected.shape[1] == 97
    assert torch.equal(logits_of(model, states), expected)
    assert torch.equal(whole_logits(model, IDS, ALL), expected)  # the model is as it was
    remove_blocks(model)
    assert torch.equal(logits_of(model, states), expected)


@pytest.mark.parametrize("kind", CONFIGS)
def test_states_of_some_tokens_are_those_of_all_and_give_their_logits(kind):
    """To a rounding: with several threads, a product's rows are summed in an order that goes by how many there are."""
    model = made(CONFIGS[kind])
    states = head_states(model, IDS, ROWS)
    assert torch.equal(states, head_states(model, IDS, ALL)[ROWS])
    expected, logits = whole_logits(model, IDS, ROWS), logits_of(model, states)
    assert float((logits - expected).abs().max()) <= ROUNDING * float(expected.abs().max())
    assert torch.equal(logits_of(model, states), logits)


def test_a_family_whose_logits_need_more_than_the_state_is_noticed(monkeypatch):
    model = made(CONFIGS["a factor"])
    forward = type(model).forward

    def with_a_bias_by_input(self, input_ids, **kwargs):
        output = forward(self, input_ids, **kwargs)
        output.logits = output.logits + input_ids.sum()
        return output

    monkeypatch.setattr(type(model), "forward", with_a_bias_by_input)
    assert "off by" in why_not_from_states(model, IDS[:1])


def test_a_family_that_cannot_run_without_its_blocks_is_noticed(monkeypatch):
    model = made(CONFIGS["a factor"])
    forward = type(model).forward

    def reads_the_first_block(self, *args, **kwargs):
        self.model.layers[0]
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", reads_the_first_block)
    assert "cannot run without its blocks (IndexError" in why_not_from_states(model, IDS[:1])
    assert len(model.model.layers) == 2


def test_a_model_without_a_head_of_its_own_is_noticed(monkeypatch):
    model = made(CONFIGS["a factor"])
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda self: None)
    assert why_not_from_states(model, IDS[:1]) == "the model has no output head of its own"
