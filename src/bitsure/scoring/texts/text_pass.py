"""Windows of a text through a model: the hidden states before the head of every scored token, and from them all numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from bitsure.base.errors import UserError
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.device_copies import send
from bitsure.scoring.local.budget import MOST_TOKENS, PROBE_TOKENS
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.logits_from_states import input_device, logits_of, remove_blocks
from bitsure.scoring.texts.head_states import head_states, whole_logits, why_not_from_states
from bitsure.scoring.texts.kept_states import KeptStates
from bitsure.scoring.texts.token_scores import TokenScores, token_scores
from bitsure.scoring.texts.tokenized_text import TextWindow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LOGITS = {"cpu": 2**24, "cuda": 2**27}  # of the whole vocabulary at once, for some rows
CHECKED_TOKENS = 8  # whose logits are computed with states and without


class FullModel(Protocol):
    """The full model's logits of the windows that a quantized model runs, from one row of states a scored token."""

    def states(self, batch: Sequence[TextWindow]) -> torch.Tensor:
        """Return the states of a batch; batches come in their order."""

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of some states, shape (n, vocabulary)."""


class TextModel:
    """A model that runs windows of a text.

    Args:
        model: A causal language model, in evaluation mode.
        rounding: The hooks that round its activations, keys and values; None if it has none.
    """

    def __init__(self, model: PreTrainedModel, rounding: InferenceRounding | None = None) -> None:
        self.model, self._rounding = model, rounding or InferenceRounding()
        self._most_tokens = MOST_TOKENS.get(input_device(model).type, PROBE_TOKENS)
        self._rounded = False
        few = torch.arange(1, 1 + CHECKED_TOKENS)[None]
        with self._rounding.exact():
            self.why_whole = why_not_from_states(model, few)
        """Why whole logits are computed, and no states; None where states are."""
        if self.why_whole:
            log.warning("%s: windows are run with whole logits, and nothing is kept for later comparisons", self.why_whole)
        self._rounding.reached.clear()

    def next_batch(self, windows: Sequence[TextWindow]) -> Sequence[TextWindow]:
        """Return the first windows that are run together: equally long ones, as many as memory and speed allow.

        They are the same for all models where memory suffices: products of the same shapes give identical models identical
        logits.
        """
        size = len(windows[0])
        most = max(1, self._most_tokens // size)
        return [window for _, window in zip(range(most), takewhile(lambda window: len(window) == size, windows), strict=False)]

    def states(self, batch: Sequence[TextWindow]) -> torch.Tensor:
        """Return what the output head reads for every scored token of a batch, run in halves where memory does not suffice.

        Args:
            batch: Windows of one length.

        Returns:
            The hidden states that predict the scored tokens, window after window, shape (scored tokens, width); where logits
            cannot be made from them, the logits, shape (scored tokens, vocabulary).

        Raises:
            UserError: If one window alone does not fit into memory, or the first batch did not round all that is to be rounded.
        """
        try:
            states = self._run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        else:
            if not self._rounded:
                self._rounding.check_reached()
                self._rounded = True
            return states
        if len(batch) == 1:  # out here the memory of the failed pass is free
            raise UserError(
                f"One window of {len(batch[0])} tokens does not fit in the memory that is left ({failure}). Give a smaller "
                "text.window, or free some memory."
            )
        half = len(batch) // 2
        log.warning("out of memory with %d windows of %d tokens: continuing with %d", len(batch), len(batch[0]), half)
        self._most_tokens = half * len(batch[0])
        return torch.cat([self.states(batch[:half]), self.states(batch[half:])])

    def _run(self, batch: Sequence[TextWindow]) -> torch.Tensor:
        return (whole_logits if self.why_whole else head_states)(self.model, *inputs_of(batch))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of some states, shape (n, vocabulary)."""
        return states if self.why_whole else logits_of(self.model, states)

    @torch.inference_mode()
    def score(self, batch: Sequence[TextWindow], states: torch.Tensor, full: FullModel | None = None) -> TokenScores:
        """Return the numbers of every scored token of a batch, from its states.

        Args:
            batch: The windows.
            states: What `states` returns of them.
            full: The full model that this one is compared with over the whole vocabulary; None for no comparison.

        Raises:
            UserError: If a log-probability is not finite, where the first layer with such a value is named; or if the two
                models do not have one vocabulary.
        """
        full_states = None if full is None else full.states(batch)
        tokens = send(torch.from_numpy(np.concatenate([window.scored for window in batch])), states.device)
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        rows = max(1, LOGITS.get(states.device.type, LOGITS["cpu"]) // vocabulary)
        parts = []
        for first in range(0, len(states), rows):
            some = slice(first, first + rows)
            logits, full_logits = self.logits(states[some]), None
            if full is not None and full_states is not None:
                full_logits = full.logits(full_states[some]).to(logits.device)
                _check_vocabularies(full_logits.shape[1], logits.shape[1])
            parts.append(token_scores(logits, tokens[some].to(logits.device), full_logits))
        scores = TokenScores.read(parts)
        self._check_finite(scores, batch)
        return scores

    def _check_finite(self, scores: TokenScores, batch: Sequence[TextWindow]) -> None:
        if np.isfinite(scores.logprob).all():
            return
        bad = int(np.flatnonzero(~np.isfinite(scores.logprob))[0])
        ends = np.cumsum([len(window.scored) for window in batch])
        window = batch[int(np.searchsorted(ends, bad, side="right"))]
        layer = first_broken_module(self.model, window.tokens[:-1].tolist())
        where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
        raise UserError(f"A token of the text has a log-probability of {scores.logprob[bad]}: the model is broken ({where}).")


def inputs_of(batch: Sequence[TextWindow]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token ids of windows of one length, shape (windows, n), and which of them predict scored tokens.

    Returns:
        The ids, and the places of these tokens, counted through all windows, shape (scored tokens,).
    """
    ids = torch.from_numpy(np.stack([window.tokens[:-1] for window in batch]))
    n = ids.shape[1]
    rows = np.concatenate([i * n + np.arange(window.first_scored - 1, n) for i, window in enumerate(batch)])
    return ids, torch.from_numpy(rows)


class KeptFullModel:
    """The full model from its kept states, and from what it does after its blocks, which are removed.

    Args:
        model: The full model.
        kept: Its states of the windows that will come.
    """

    def __init__(self, model: PreTrainedModel, kept: KeptStates) -> None:
        remove_blocks(model)
        self._model, self._kept = model, kept

    def states(self, batch: Sequence[TextWindow]) -> torch.Tensor:
        """Return the states of the next batch."""
        return send(self._kept.next(sum(len(window.scored) for window in batch)), input_device(self._model))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of some states, shape (n, vocabulary)."""
        return logits_of(self._model, states)


def _check_vocabularies(full: int, quantized: int) -> None:
    if full != quantized:
        raise UserError(
            f"The full model gives probabilities to {full:,} tokens and the quantized one to {quantized:,}: with two "
            "vocabularies there is no KL divergence. Score each model by itself with quant=none: bits per byte compare them."
        )
