"""Windows of a text through a model: the hidden states before the head of every scored token, and from them all numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bitsure.base.errors import UserError
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.scoring.local import forward, patches
from bitsure.scoring.local.budget import MOST_TOKENS, PROBE_TOKENS
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.padding import state_restored
from bitsure.scoring.texts.tokenized_text import TextWindow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LOGITS = {"cpu": 2**22, "cuda": 2**27}  # of the whole vocabulary at once, for some rows


@dataclass(frozen=True)
class TokenScores:
    """What a model says of m scored tokens, shape (m,) each.

    Attributes:
        logprob: Log-probability of the true token, nats, float32.
        top_token: The most likely token.
        top_logprob: Its log-probability, nats, float32.
    """

    logprob: NDArray[np.float32]
    top_token: NDArray[np.int32]
    top_logprob: NDArray[np.float32]


class TextModel:
    """A model that runs windows of a text.

    Args:
        model: A causal language model, in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        # Other families may change the logits after the head, such as Gemma 2's soft cap: their states are the logits.
        self._head = forward.output_head(model) if model.config.model_type in forward.SHARING else None
        device = forward.input_device(model).type
        self._most_tokens = MOST_TOKENS.get(device, PROBE_TOKENS)

    def next_batch(self, windows: Sequence[TextWindow]) -> Sequence[TextWindow]:
        """Return the first windows that are run together: equally long ones, as many as memory and speed allow."""
        size = len(windows[0])
        most = max(1, self._most_tokens // size)
        return [window for _, window in zip(range(most), takewhile(lambda window: len(window) == size, windows), strict=False)]

    @torch.inference_mode()
    def states(self, batch: Sequence[TextWindow]) -> torch.Tensor:
        """Return what the output head reads for every scored token of a batch.

        Args:
            batch: Windows of one length n.

        Returns:
            The hidden states that predict the scored tokens, window after window, shape (scored tokens, width); where the
            model may change logits after its head, the logits, shape (scored tokens, vocabulary).

        Raises:
            UserError: If one window alone does not fit into memory.
        """
        try:
            return self._run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
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
        ids = torch.from_numpy(np.stack([window.tokens[:-1] for window in batch])).to(forward.input_device(self.model))
        n = ids.shape[1]
        nodes = np.concatenate([i * n + np.arange(window.first_scored - 1, n) for i, window in enumerate(batch)])
        at = torch.from_numpy(nodes)
        with ExitStack() as stack:
            stack.enter_context(state_restored(self.model))
            if self._head is None:
                logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
                return logits.flatten(0, 1)[at.to(logits.device)]
            states = stack.enter_context(patches.states_before_head(self._head, at))
            self.model(input_ids=ids, use_cache=False)
        return states[0]

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the logits of some states after the others, float32, shape (some, vocabulary); all rows in their order."""
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        rows = max(1, LOGITS.get(states.device.type, LOGITS["cpu"]) // vocabulary)
        for some in torch.split(states, rows):
            yield (some if self._head is None else self._head(some)).float()

    @torch.inference_mode()
    def score(self, batch: Sequence[TextWindow], states: torch.Tensor) -> TokenScores:
        """Return the numbers of every scored token of a batch, from its states.

        Raises:
            UserError: If a log-probability is not finite; the first layer with such a value is named.
        """
        targets = torch.from_numpy(np.concatenate([window.scored for window in batch])).to(states.device)
        logprobs, tops, top_logprobs, start = [], [], [], 0
        for logits in self.logits(states):
            normalizer = logits.logsumexp(-1)
            best = logits.max(-1)
            true = logits.gather(-1, targets[start : start + len(logits), None])[:, 0]
            logprobs.append(true - normalizer)
            tops.append(best.indices)
            top_logprobs.append(best.values - normalizer)
            start += len(logits)
        logprob = torch.cat(logprobs).cpu().numpy()
        self._check_finite(logprob, batch)
        return TokenScores(logprob, torch.cat(tops).cpu().numpy().astype(np.int32), torch.cat(top_logprobs).cpu().numpy())

    def _check_finite(self, logprob: NDArray[np.float32], batch: Sequence[TextWindow]) -> None:
        if np.isfinite(logprob).all():
            return
        bad = int(np.flatnonzero(~np.isfinite(logprob))[0])
        ends = np.cumsum([len(window.scored) for window in batch])
        window = batch[int(np.searchsorted(ends, bad, side="right"))]
        layer = first_broken_module(self.model, window.tokens[:-1].tolist())
        where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
        raise UserError(f"A token of the text has a log-probability of {logprob[bad]}: the model is broken ({where}).")
