"""Whether a model's tokenizer has what the prompts of a run need."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def with_bos(tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> PreTrainedTokenizerBase:
    """Return a tokenizer that begins texts with the BOS token, or does not.

    Args:
        tokenizer: The tokenizer, which stays as it is.
        add_bos: Whether texts begin with the BOS token; None returns the tokenizer itself.
    """
    if add_bos is None:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.add_bos_token = add_bos
    return changed


def check_prompting(tokenizer: PreTrainedTokenizerBase, task: TaskSettings) -> None:
    """Raise UserError if the prompts need a chat template or a BOS token that the tokenizer does not have."""
    if task.chat_template and not tokenizer.chat_template:
        raise UserError(
            "task.chat_template=true: this model's tokenizer has no chat template (chat_template in tokenizer_config.json, or "
            "chat_template.jinja). Leave it out: models that are no chat models have none."
        )
    if task.add_bos:
        begins = tokenizer.bos_token_id is not None and with_bos(tokenizer, True).encode("a")[0] == tokenizer.bos_token_id
        if not begins:
            raise UserError(
                f"task.add_bos=true: this model's tokenizer puts no BOS token (its own is {tokenizer.bos_token!r}) before a "
                "text. Leave it out."
            )
