"""Whether a model's tokenizer has what the prompts of a run need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from bitsure.base.errors import UserError
from bitsure.base.rendering import LimitedEnvironment, rendered
from bitsure.config.schema import TaskSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CHAT_TEMPLATE = "task.chat_template=true: the chat template of this model's tokenizer"


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


def with_chat_template(apply: Callable[..., Any], turns: Sequence[Mapping[str, str]], *settings: object) -> str:
    """Return a conversation as a model's chat template writes it.

    Args:
        apply: Renders the template.
        turns: The turns, each with `role` and `content`.
        settings: Passed on to `apply`.

    Raises:
        UserError: If the template refuses the turns, or takes too much time or memory.
    """
    from transformers.utils import chat_template_utils

    chat_template_utils.ImmutableSandboxedEnvironment = LimitedEnvironment  # type: ignore[attr-defined]
    try:
        return rendered(CHAT_TEMPLATE, lambda: str(apply(turns, *settings)), lambda: len(str(turns)))
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(f"{CHAT_TEMPLATE} cannot be rendered for the turns {roles}: {error}") from error


def check_prompting(tokenizer: PreTrainedTokenizerBase, task: TaskSettings) -> None:
    """Raise UserError if the prompts need a chat template or a BOS token that the tokenizer lacks, or cannot be rendered."""
    if task.chat_template and not tokenizer.chat_template:
        raise UserError(
            "task.chat_template=true: this model's tokenizer has no chat template (chat_template in tokenizer_config.json, or "
            "chat_template.jinja). Leave it out: models that are no chat models have none."
        )
    if task.chat_template:
        with_chat_template(partial(tokenizer.apply_chat_template, tokenize=False), [{"role": "user", "content": "a"}])
    if task.add_bos:
        begins = tokenizer.bos_token_id is not None and with_bos(tokenizer, True).encode("a")[0] == tokenizer.bos_token_id
        if not begins:
            raise UserError(
                f"task.add_bos=true: this model's tokenizer puts no BOS token (its own is {tokenizer.bos_token!r}) before a "
                "text. Leave it out."
            )
