"""lm-evaluation-harness's evaluation, with a hook that keeps every token's log-probability.

This file, names.py, tasks.py and task_data.py are the only ones that import lm_eval.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lm_eval.api.task
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
from bitsure.tasks.harness_tasks import MC2, choices_of, gold_of
from bitsure.tasks.names import CHOICES, TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PER = ("word_perplexity", "byte_perplexity")  # of a text: the harness's pairs of log-likelihood and number of words, of bytes


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


def run(loaded: dict[str, Any], lm: HookedLM, task: TaskSettings) -> tuple[list[Record], list[str]]:
    """Let the harness evaluate one entry of `load_tasks`; returns a record and the prompt (of its first choice) a question.

    Raises UserError if the harness's own accuracy, or a text's log-likelihood, is not ours.
    """
    lm.scored.clear()
    results = evaluate(
        lm,
        loaded,
        limit=task.limit,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=task.system_instruction,
        apply_chat_template=task.chat_template,
        fewshot_as_multiturn=task.chat_template,  # the harness's own default with a template
    )
    records, prompts = [], []
    for name, samples in results["samples"].items():
        one = loaded["tasks"][name]
        if samples and one.OUTPUT_TYPE != TEXT and "acc" not in samples[0]:
            log.warning("task %s has no metric acc: our accuracy of it is not checked against the harness's", name)
        for sample in samples:
            records.append(_record(name, one, sample, lm.scored))
            _check_agreement(records[-1], sample)
            prompts.append(sample["arguments"][0][0] if one.OUTPUT_TYPE != TEXT else "")
    return records, prompts


def _record(name: str, task: lm_eval.api.task.Task, sample: dict, scored: dict[tuple[str, ...], Scored]) -> Record:
    """A question and its choices; or one whose only choice is the continuation, or the text, that is scored."""
    where, words, n_bytes = f"task {name}, question {sample['doc_id']}", None, None
    if task.OUTPUT_TYPE == CHOICES:
        choices = choices_of(task, sample["doc"])
        asked = sample["arguments"][: len(choices)]  # tasks with acc_mutual_info ask for more after these
        gold = gold_of(name, task, sample["doc"], choices)
        if len(choices) < 2 or len(choices) != len(asked):
            raise UserError(f"{where}: {len(choices)} choices and {len(asked)} scored; a confidence needs two or more.")
    else:
        asked, gold = sample["arguments"], [0]
        choices = [asked[0][-1].removeprefix(" ")]
    if task.OUTPUT_TYPE == TEXT:
        words, n_bytes = _lengths(sample, choices[0])
    outcomes = [scored[tuple(arguments[: 1 if task.OUTPUT_TYPE == TEXT else 2])] for arguments in asked]
    return Record(
        task=name,
        doc_id=sample["doc_id"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=choices,
        gold=gold,
        choice_logprobs=[one.logprob for one in outcomes],
        choice_tokens=[len(one.token_logprobs) for one in outcomes],
        choice_greedy=[one.greedy for one in outcomes],
        token_logprobs=[one.token_logprobs for one in outcomes],
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
        words=words,
        bytes=n_bytes,
    )


def _lengths(sample: dict, text: str) -> tuple[int, int]:
    """A text's words and bytes as its task counts them (wikitext: before its spaces were mended); else those of the text."""
    words, n_bytes = (sample[name][1] if name in sample else None for name in PER)
    return words or len(text.split()), n_bytes or len(text.encode())


def _check_agreement(record: Record, sample: dict) -> None:
    """The harness's own accuracy of a question, or log-likelihood of a text, and ours must be the same."""
    if record.words is not None:
        theirs = [sample[name][0] for name in PER if name in sample]
        if any(abs(one - record.choice_logprobs[0]) > 1e-6 * abs(one) for one in theirs):
            raise UserError(
                f"task {record.task}, text {record.doc_id}: the harness scored {theirs}, the records say otherwise."
            )
        return
    if "acc" not in sample:  # `run` has said so
        return
    best = max(range(len(record.choices)), key=record.choice_logprobs.__getitem__)
    ours = float(best in record.gold) if len(record.choices) > 1 else float(record.choice_greedy[0])
    if record.task == MC2:  # its `acc` is the probability of the right choices
        weights = [math.exp(z - record.choice_logprobs[best]) for z in record.choice_logprobs]
        ours = sum(weights[g] for g in record.gold) / sum(weights)
    if abs(ours - float(sample["acc"])) > (1e-6 if record.task == MC2 else 0):
        raise UserError(
            f"task {record.task}, question {record.doc_id}: the harness's acc is {sample['acc']}, the records' {ours}. "
            "One of the two reads the task wrongly; no number of it is reported."
        )
