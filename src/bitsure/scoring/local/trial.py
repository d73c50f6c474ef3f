"""What a model can do, tried on itself on a few tokens: so a new family needs no entry in a list."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from bitsure.base.errors import UserError
from bitsure.base.library_errors import logged_or_quoted
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.scoring.local.forward import score_plain, score_trees
from bitsure.scoring.local.logits_from_states import input_device, output_head
from bitsure.scoring.local.once_a_model import once_a_model
from bitsure.scoring.local.padding import rotary_types
from bitsure.scoring.local.patches import ATTENTION_PART
from bitsure.scoring.local.rows import TreeRow, chains, trees
from bitsure.scoring.local.state_copies import LEAST_SHARED, score_copies, score_copies_by_token
from bitsure.scoring.requests import Requests, Scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

RunBatch: TypeAlias = "Callable[[PreTrainedModel, Sequence[TreeRow], Requests], Mapping[int, Scored]]"
TOKENS = range(10, 250)  # ordinary tokens of most vocabularies
AGREEMENT = 0.6  # of a type's digits: rounding leaves more of them, another mask or position fewer
TRIAL_LENGTH = 60  # tokens that inputs of a trial share; no sliding window in use is so short
PART = 8  # tokens of a row whose attention is computed at once, so that a short row has parts


def why_no_trees(model: PreTrainedModel, longest: int) -> str | None:
    """Return why a model cannot run trees with inputs of up to `longest` tokens; None if it can."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window and longest > window:
        return f"inputs of up to {longest} tokens do not fit the sliding window of {window}"
    return _why_no_trees(model)


@once_a_model
def _why_no_trees(model: PreTrainedModel) -> str | None:
    attention = getattr(model.config, "_attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        return f"the attention {attention} takes no mask of ours"

    part = PART if input_device(model).type in ATTENTION_PART else None

    def run(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> Mapping[int, Scored]:
        return score_trees(model, batch, requests, part)

    return _why_not_shared(model) or _why_not(model, run)


@once_a_model
def why_no_copies(model: PreTrainedModel) -> str | None:
    """Return why a model cannot read on from copies of its state; None if it can."""
    return _why_not_shared(model) or _why_not(model, score_copies)


@once_a_model
def why_no_copies_by_token(model: PreTrainedModel) -> str | None:
    """Return why a model cannot read on from copies of its state one token at a time; None if it can."""
    return _why_not_shared(model) or _why_not(model, score_copies_by_token)


@once_a_model
def check_causal(model: PreTrainedModel) -> None:
    """Raise UserError if a model does not run on token ids alone, or its probabilities depend on the tokens after them."""
    tokens = tokens_of_trial(model, 20)
    ids = torch.tensor([tokens, tokens[:10] + tokens[:9:-1]], device=input_device(model))
    try:
        with torch.inference_mode():
            first, second = model(input_ids=ids, use_cache=False).logits[:, :10].float().log_softmax(-1)
    except BUILD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{type(model).__name__} gives no probabilities for a few token ids alone: it is no language model by itself, or "
            f"its config.json is wrong. It is not scored. {logged_or_quoted(log, type(model).__name__, error)}"
        ) from error
    if not alike(model, first, second):
        raise UserError(
            f"{type(model).__name__} reads the tokens after the one that it predicts, as its config.json has it, so that its "
            "probabilities are not those of a language model. Give a causal model (is_decoder=true in the config.json of BERT "
            "and its kind)."
        )


@once_a_model
def padding_changes(model: PreTrainedModel) -> bool:
    """Return whether inputs get other log-probabilities together in a padded batch than each by itself.

    The choice among keys or experts of some models turns on the last digit of a sum.

    Raises:
        UserError: If a model draws random numbers, so that an input's log-probabilities are others each time.
    """
    requests: Requests = {n: ([5], tokens_of_trial(model, n, n)) for n in range(TRIAL_LENGTH, 2 * TRIAL_LENGTH, 10)}
    rows = chains(requests)

    def run(batches: Iterable[Sequence[TreeRow]]) -> torch.Tensor:
        scored = [each for batch in batches for each in score_plain(model, batch, requests).values()]
        return torch.tensor([p for each in scored for p in each.token_logprobs])

    alone, first = run([row] for row in rows), run([rows[:1]])
    if not alike(model, first, alone[: len(first)]):
        raise UserError(
            f"{type(model).__name__} gives the same input other probabilities each time, because it draws random numbers. "
            "Fix them in its config.json (Reformer: hash_seed). It is not scored."
        )
    return not alike(model, alone, run([rows]))


def _why_not_shared(model: PreTrainedModel) -> str | None:
    """Return what rules out sharing in either way, whatever the model does."""
    if output_head(model) is None:
        return "the model has no output head of its own"
    for kind in rotary_types(model.config):
        return f"{kind} rotary positions depend on the batch's longest input"
    return None


def _why_not(model: PreTrainedModel, run: RunBatch) -> str | None:
    """Return why a way to run requests cannot be taken: it fails, or gives other log-probabilities than plain passes."""
    requests = _branching_requests(model)
    expected = [score_plain(model, [row], requests) for row in chains(requests)]
    plain = {i: scored for of_row in expected for i, scored in of_row.items()}
    try:
        shared = run(model, trees(requests, 1, 10_000), requests)
    except BUILD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        log.info("%s's own error in a trial", type(model).__name__, exc_info=error)
        return "the model's code fails in a trial"
    first, second = (torch.tensor([p for i in plain for p in scored[i].token_logprobs]) for scored in (plain, shared))
    return None if alike(model, first, second) else "a trial gives other log-probabilities"


def alike(model: PreTrainedModel, first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether log-probabilities agree in AGREEMENT of the digits of the model's type, the finite ones of the first."""
    finite = first.isfinite()
    off, spread = (second - first)[finite], first[finite] - first[finite].mean()
    return bool(off.norm() <= torch.finfo(model.dtype).eps ** AGREEMENT * spread.norm() + 1e-6)


def _branching_requests(model: PreTrainedModel) -> Requests:
    """Return requests whose inputs share more and less, and end on the same tokens at other places."""
    shared, own = tokens_of_trial(model, TRIAL_LENGTH), tokens_of_trial(model, 6)
    middles = tokens_of_trial(model, 3, 1), tokens_of_trial(model, LEAST_SHARED + 1, 2)
    inputs = [[*shared, *middle, *own[:n]] for middle in middles for n in (2, 4, 6)]
    inputs += [[*shared[:2], *tokens_of_trial(model, 9, 3)], [*shared[:2], *own]]
    return {i: (tokens[:1], tokens[1:]) for i, tokens in enumerate(inputs)}


def tokens_of_trial(model: PreTrainedModel, n: int, seed: int = 0) -> list[int]:
    """Return random tokens that a model has."""
    vocabulary = model.config.get_text_config().vocab_size
    return [token % vocabulary for token in random.Random(seed).choices(TOKENS, k=n)]
