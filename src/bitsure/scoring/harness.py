"""lm-evaluation-harness's evaluation, with a hook that keeps every token's log-probability.

This file, names.py, tasks.py and task_data.py are the only ones that import lm_eval.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.records.record import Record, cluster_of
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local.engine import Engine
from bitsure.scoring.local.forward import Scored
from bitsure.tasks.harness_tasks import LoadedTasks
from bitsure.tasks.kinds import Question, kind_of
from bitsure.tasks.protocols import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class HookedLM(HFLM):
    """HFLM with our engine for log-likelihoods, whole and rolling; generation is the parent's.

    add_bos: whether texts begin with the BOS token; None leaves it to the tokenizer. `scored` keeps every token's
    log-probability by (context, continuation), or by (text,); `journal`, if there is one, keeps them on disk.
    rounding: the model's hooks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        advance: Callable[[int], None],
        share: bool = True,
        add_bos: bool | None = None,
        rounding: InferenceRounding | None = None,
    ):
        if add_bos is not None:
            tokenizer.add_bos_token = add_bos  # the harness asks the tokenizer for it, and most give none unless told so
        super().__init__(pretrained=model, tokenizer=tokenizer, add_bos_token=add_bos)
        self.scored: dict[tuple[str, ...], Scored] = {}
        self.journal: Journal | None = None
        self._engine = Engine(self.model, self.max_length, share, rounding)
        self._advance = advance
        self._asked: Sequence[Instance] = ()

    @property
    def tokens(self) -> int:
        """How many were run so far, padding counted."""
        return self._engine.tokens

    def limits(self) -> Limits:
        """What a batch may have on this machine."""
        return self._engine.limits()

    def loglikelihood(self, requests, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._asked = requests
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = True) -> list[float]:
        """Over the parent's windows, of all texts at once, with every token kept."""
        texts = [request.args[0] for request in requests]
        windows = [self._windows(text) for text in texts]
        owner = [i for i, found in enumerate(windows) for _ in found]
        scored = iter(
            self._engine.score(
                [window for found in windows for window in found],
                lambda i: f"{_where(requests[owner[i]])}, a window of its text",
                _in_steps_of(self._advance, len(texts), len(owner)),
                self.journal,
            )
        )
        for text, found in zip(texts, windows, strict=True):
            parts = [next(scored) for _ in found]
            tokens = [logprob for part in parts for logprob in part.token_logprobs]
            self.scored[text,] = Scored(tokens, all(part.greedy for part in parts))
        return [self.scored[text,].logprob for text in texts]

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        found = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1)
        return [make_disjoint_window(window) for window in found]

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None) -> list[tuple[float, bool]]:
        pairs = [(list(context), list(continuation)) for _, context, continuation in requests]
        scored = self._engine.score(pairs, self._name, self._advance, self.journal)
        self.scored |= {strings: one for (strings, _, _), one in zip(requests, scored, strict=True) if strings}
        return [(one.logprob, one.greedy) for one in scored]

    def _name(self, i: int) -> str:
        return _where(self._asked[i]) + f", choice {self._asked[i].idx}" if self._asked else f"request {i}"


def _where(one: Instance) -> str:
    return f"task {one.task_name}, question {one.doc_id}"


def _in_steps_of(advance: Callable[[int], None], whole: int, parts: int) -> Callable[[int], None]:
    """Tell of `parts` as if they were `whole`: of windows as of texts."""
    done = 0

    def tell(n: int) -> None:
        nonlocal done
        before, done = done, done + n
        advance(done * whole // parts - before * whole // parts)

    return tell


def check_prompting(tokenizer: PreTrainedTokenizerBase, task: TaskSettings) -> None:
    """Raise UserError if a tokenizer has no chat template, or no BOS token, and one is asked for."""
    if task.chat_template and not tokenizer.chat_template:
        raise UserError(
            "task.chat_template=true: this model's tokenizer has no chat template (chat_template in tokenizer_config.json, or "
            "chat_template.jinja). Leave it out: models that are no chat models have none."
        )
    if task.add_bos:
        before, tokenizer.add_bos_token = getattr(tokenizer, "add_bos_token", None), True
        begins = tokenizer.bos_token_id is not None and tokenizer.encode("a")[0] == tokenizer.bos_token_id
        tokenizer.add_bos_token = before
        if not begins:
            raise UserError(
                f"task.add_bos=true: this model's tokenizer puts no BOS token (its own is {tokenizer.bos_token!r}) before a "
                "text. Leave it out."
            )


def run(loaded: LoadedTasks, lm: HookedLM, task: TaskSettings) -> tuple[list[Record], list[str]]:
    """Evaluate tasks with the harness.

    Args:
        loaded: The tasks, with their data.
        lm: The model.
        task: How the questions are put.

    Returns:
        For each question its record, and the prompt of its first choice.

    Raises:
        UserError: If the harness's own accuracy of a question, or its log-likelihood of a text, is not the record's.
    """
    lm.scored.clear()
    results = evaluate(
        lm,
        {"tasks": loaded.tasks},
        limit=task.limit,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=task.system_instruction,
        apply_chat_template=task.chat_template,
        fewshot_as_multiturn=task.chat_template,  # the harness's own default with a template
    )
    records, prompts = [], []
    for name, samples in results["samples"].items():
        harness_task = loaded.tasks[name]
        kind = kind_of(harness_task)
        if samples and not kind.has_check(samples[0]):
            log.warning("task %s has no metric acc: our accuracy of it is not checked against the harness's", name)
        for sample in samples:
            record = _record(name, sample, kind.question(name, harness_task, sample), lm.scored)
            kind.check_agreement(record, sample)
            records.append(record)
            prompts.append(kind.prompt(sample))
    return records, prompts


def _record(name: str, sample: Sample, question: Question, scored: Mapping[tuple[str, ...], Scored]) -> Record:
    choices = [scored[request] for request in question.requests]
    return Record(
        task=name,
        doc_id=sample["doc_id"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=question.choices,
        gold=question.gold,
        choice_logprobs=[choice.logprob for choice in choices],
        choice_tokens=[len(choice.token_logprobs) for choice in choices],
        choice_greedy=[choice.greedy for choice in choices],
        token_logprobs=[choice.token_logprobs for choice in choices],
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
        words=question.words,
        bytes=question.bytes,
    )
