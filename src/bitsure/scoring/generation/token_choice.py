"""How the next token of an answer is chosen, as `transformers.generate` chooses it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.configuration_utils import GenerationMode

from bitsure.base.errors import UserError
from bitsure.scoring.generation.generation_request import GenerationRequest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)


class TokenChoice:
    """Chooses the tokens of one answer.

    Args:
        model: The model, whose own generation config has the defaults.
        request: The answer that is written.

    Raises:
        UserError: If the request's settings name what is not done here, such as beam search.
    """

    def __init__(self, model: PreTrainedModel, request: GenerationRequest) -> None:
        prepare: Any = model._prepare_generation_config
        config, unknown = prepare(None, **request.settings)
        mode = config.get_generation_mode()
        if unknown or mode not in MODES:
            what = f"{', '.join(unknown)} of generation_kwargs" if unknown else str(mode.value).replace("_", " ")
            raise UserError(
                f"{what}: answers are written greedily or by sampling, with the settings of transformers' GenerationConfig "
                "(do_sample, temperature, top_p, top_k, repetition_penalty and so on). Change the task's generation_kwargs."
            )
        n = len(request.prompt)
        config.max_length = n + request.max_new_tokens
        special = partial(torch.tensor, dtype=torch.long)
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        self.end_tokens = {end for end in ends if end is not None}
        """The tokens that end an answer."""
        config._eos_token_tensor = special(sorted(self.end_tokens)) if self.end_tokens else None
        make: Any = model._get_logits_processor
        self._processors = make(config, input_ids_seq_length=n, device="cpu")
        self._prompt = request.prompt
        self._drawn = torch.Generator().manual_seed(request.seed) if mode is GenerationMode.SAMPLE else None

    @property
    def is_plain(self) -> bool:
        """Whether the most likely token is always taken."""
        return self._drawn is None and not self._processors

    def choose(self, logits: torch.Tensor, tokens: Sequence[int]) -> int:
        """Return the next token.

        Args:
            logits: Shape (vocabulary,), float32, in main memory.
            tokens: The answer so far.
        """
        ids = torch.tensor([[*self._prompt, *tokens]])
        scores = self._processors(ids, logits[None].clone())[0]
        if self._drawn is None:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._drawn))
