"""The log-probability of every token of every continuation, each distinct prefix run once.

Requests become rows (`rows.py`), rows become batches within a budget (`budget.py`), batches (`batch_runner.py`) go through the
model (`forward.py`) in the fastest way that it allows (`pass_choice.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typing_extensions import override

from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.offloading import offloaded_parts
from bitsure.models.size import parameters_of
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import forward
from bitsure.scoring.local.batch_runner import BatchRunner
from bitsure.scoring.local.budget import PROBE_TOKENS, Budget
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.logits_from_states import input_device
from bitsure.scoring.local.pass_choice import PassChoice, few_questions
from bitsure.scoring.local.passes import Passes
from bitsure.scoring.local.rows import TreeRow, chains
from bitsure.scoring.local.trial import RunBatch
from bitsure.scoring.requests import Request, Requests, Scored, input_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_LENGTH = 128  # tokens of an input of the batch that is measured


class LocalEngine(Engine):
    """Scores continuations with a transformers model.

    Args:
        model: A causal language model, in evaluation mode.
        max_length: Its context length, tokens.
        share: Whether prefixes are shared. If the model cannot they are not, and the log says so.
        rounding: The hooks that round the model's activations, keys and values; None if it has none.
    """

    def __init__(
        self, model: PreTrainedModel, max_length: int, share: bool = True, rounding: InferenceRounding | None = None
    ) -> None:
        super().__init__(max_length)
        self.model, self.share = model, share
        self.rounding = rounding or InferenceRounding()
        self.is_offloaded = bool(offloaded_parts(model))
        self.budget = Budget(input_device(model), model.config.get_text_config().vocab_size, self.is_offloaded)
        self._runner = BatchRunner(model, self.budget)
        self._choice = PassChoice(self._runner, share, self.rounding)

    @property
    @override
    def parameters(self) -> int:
        return parameters_of(self.model)

    @override
    def limits(self) -> Limits:
        if not self.budget.probed:
            try:
                self._probe()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.budget.shrink(PROBE_TOKENS)
        return self.budget.limits

    @override
    def broken_layer(self, request: Request) -> str | None:
        return first_broken_module(self.model, input_tokens(request))

    @override
    def run(self, requests: Requests, journal: Journal, known: Mapping[int, Scored]) -> Iterator[dict[int, Scored]]:
        """Score requests, batch by batch, as `Engine.run`.

        Raises:
            UserError: If one input alone does not fit into memory, or if the first batch did not round all that the model has
                to round.
        """
        try:
            passes = self._choice.fastest(requests)
            brings_once = self.is_offloaded and self._may_bring_once(passes, requests)
            self.rounding.reached.clear()
            for number, batch in enumerate(self._runner.run(requests, passes, journal, known, brings_once)):
                if number == 0:
                    self.rounding.check_reached()
                yield batch
        finally:
            self.tokens = self._runner.tokens

    def lay_out(self, requests: Requests, most: int) -> tuple[RunBatch, list[list[TreeRow]]]:
        """Return how requests are run, each batch in one pass, and their batches of at most `most` tokens each."""
        limits = self.limits()
        passes = self._choice.fastest(requests, ("trees",))
        return passes.run, passes.lay_out(requests, Limits(min(most, limits.shared), min(most, limits.plain)))

    def _probe(self) -> None:
        """Measure a batch of zeros, which is thrown away: so the limits do not depend on what is scored when."""
        length = min(PROBE_LENGTH, self.max_length)
        share = self.share and self._choice.why_not("trees", {0: ([0] * length, [0])}) is None
        run: RunBatch = forward.score_trees if share else forward.score_plain
        most = PROBE_TOKENS if share else min(PROBE_TOKENS, self.budget.with_logits)
        requests: Requests = {i: ([0] * (length - i), [0]) for i in range(max(1, min(most // length, length)))}
        rows = chains(requests)
        run(self.model, rows[:1], requests)  # the first pass is slower
        with self.budget.measure(len(rows) * length):
            run(self.model, rows, requests)

    def _may_bring_once(self, passes: Passes, requests: Requests) -> bool:
        with self.rounding.exact():
            return self._runner.may_bring_once(passes, few_questions(requests))
