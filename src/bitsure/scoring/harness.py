"""lm-evaluation-harness: its tasks and its evaluation, with a hook that keeps every token's log-probability.

The only file that imports lm_eval.
"""

from __future__ import annotations

import difflib
import functools
import logging
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lm_eval.api.task
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from bitsure import hub
from bitsure.config import Task
from bitsure.errors import UserError
from bitsure.records import Record, cluster_of
from bitsure.scoring.engine import Engine
from bitsure.scoring.forward import Scored
from bitsure.scoring.journal import Journal, Limits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MC2 = "truthfulqa_mc2"


class HookedLM(HFLM):
    """HFLM with our engine for log-likelihoods, whole and rolling; generation is the parent's.

    `scored` keeps every token's log-probability by (context, continuation); `journal`, if there is one, keeps them on disk.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, advance: Callable[[int], None], share: bool = True
    ):
        super().__init__(pretrained=model, tokenizer=tokenizer)
        self.scored: dict[tuple[str, str], Scored] = {}
        self.journal: Journal | None = None
        self._engine = Engine(self.model, self.max_length, share)
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
        self._asked = ()
        rows, self.batch_size_per_gpu = (
            self.batch_size_per_gpu,
            sys.maxsize,
        )  # all windows at once: the engine makes the batches
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)
        finally:
            self.batch_size_per_gpu = rows

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None) -> list[tuple[float, bool]]:
        pairs = [(list(context), list(continuation)) for _, context, continuation in requests]
        scored = self._engine.score(pairs, self._name, self._advance, self.journal)
        self.scored |= {strings: one for (strings, _, _), one in zip(requests, scored, strict=True) if strings}
        return [(one.logprob, one.greedy) for one in scored]

    def _name(self, i: int) -> str:
        if not self._asked:
            return f"window {i} of the text"
        one = self._asked[i]
        return f"task {one.task_name}, question {one.doc_id}, choice {one.idx}"


def load_tasks(task: Task, names: Sequence[str], hub_mirror: str | None) -> dict[str, dict]:
    """The harness's task objects (and groups) for each name, with their data.

    Raises UserError for a name that the harness does not have, and for tasks without choices.
    """
    loaded = {}
    with hub.datasets_from(hub_mirror, task.include_path):
        for name in names:
            manager = _manager(task.include_path, include_defaults=False)
            if task.include_path is None or name not in manager.all_tasks:
                manager = _manager(task.include_path, include_defaults=True)
            if name not in manager.all_tasks:
                near = difflib.get_close_matches(name, manager.all_tasks, n=5)
                raise UserError(
                    f"task.names: there is no task {name!r} in lm-evaluation-harness"
                    + (f" or in task.include_path={task.include_path}" if task.include_path else "")
                    + (f". Near: {', '.join(near)}." if near else ".")
                    + " `lm-eval ls tasks` lists them all."
                )
            loaded[name] = manager.load([name])
            for sub_name, one in loaded[name]["tasks"].items():
                _check_has_choices(sub_name, one)
                _configure(one, task)
                for doc in list(one.eval_docs)[:1]:
                    _gold(sub_name, one, doc, [str(choice) for choice in one.doc_to_choice(doc)])
    return loaded


def run(loaded: dict[str, Any], lm: HookedLM, limit: int | None) -> tuple[list[Record], list[str]]:
    """Let the harness evaluate one entry of `load_tasks`; returns a record and the prompt (of its first choice) a question.

    Raises UserError if the harness's own accuracy is not ours.
    """
    lm.scored.clear()
    results = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    records, prompts = [], []
    for name, samples in results["samples"].items():
        task = loaded["tasks"][name]
        if samples and "acc" not in samples[0]:
            log.warning("task %s has no metric acc: our accuracy of it is not checked against the harness's", name)
        for sample in samples:
            records.append(_record(name, task, sample, lm.scored))
            _check_agreement(records[-1], sample)
            prompts.append(sample["arguments"][0][0])
    return records, prompts


def count_requests(loaded: dict[str, Any], limit: int | None) -> int:
    """About how many log-likelihoods an entry of `load_tasks` will ask for: its questions' choices."""
    total = 0
    for task in loaded["tasks"].values():
        docs = list(task.eval_docs)[:limit]
        total += sum(len(task.doc_to_choice(doc)) for doc in docs)
    return total


def size(loaded: dict[str, Any], limit: int | None) -> tuple[int, int]:
    """Questions of an entry of `load_tasks`, and about how many characters they and their choices have."""
    questions = characters = 0
    for task in loaded["tasks"].values():
        docs = list(task.eval_docs)[:limit]
        some = docs[:: max(1, len(docs) // 100)]
        texts = [[task.doc_to_text(doc), *task.doc_to_choice(doc)] for doc in some]
        questions += len(docs)
        characters += sum(len(str(text)) for question in texts for text in question) * len(docs) // max(1, len(some))
    return questions, characters


def training_texts(task: Task, hub_mirror: str | None) -> list[str]:
    """Every question of the tasks' training splits with its right answer, as scoring puts them, without examples before it.

    What is word for word a scored question with its answer is left out. Raises UserError if a task has no training split
    apart from the scored one, or nothing is left of all.
    """
    loaded = load_tasks(task, task.names, hub_mirror)
    tasks = {name: one for entry in loaded.values() for name, one in entry["tasks"].items()}
    if without := [name for name, one in tasks.items() if not _has_own_training_split(one)]:
        raise UserError(
            f"calib=task: {', '.join(without)} {'has' if len(without) == 1 else 'have'} no training split apart from the "
            "scored one. Leave them out of task.names, or take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    scored = {_answered(name, one, doc) for name, one in tasks.items() for doc in one.eval_docs}
    texts = [_answered(name, one, doc) for name, one in tasks.items() for doc in one.training_docs()]
    kept = [text for text in texts if text not in scored]
    if not kept:
        raise UserError(
            f"calib=task: all {len(texts)} training questions of {', '.join(tasks)} are scored questions too. "
            "Take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    log.info("calibration text: %d training questions; %d others are scored and left out", len(kept), len(texts) - len(kept))
    return kept


@functools.cache
def _manager(include_path: str | None, include_defaults: bool) -> TaskManager:
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _check_has_choices(name: str, task: lm_eval.api.task.Task) -> None:
    if task.OUTPUT_TYPE != "multiple_choice":
        raise UserError(
            f"task {name} is of the kind {task.OUTPUT_TYPE}: it has no choices to take a confidence from. "
            "Choose tasks of the kind multiple_choice, such as arc_easy, boolq, hellaswag, piqa."
        )


def _configure(one: lm_eval.api.task.Task, task: Task) -> None:
    """Set the few-shot count and seed as the harness's own command line does: a task that fixes 0 keeps it."""
    own = one.get_config("num_fewshot")
    if task.num_fewshot is not None and own != 0:
        one.set_config(key="num_fewshot", value=task.num_fewshot)
    elif own is None:
        one.set_config(key="num_fewshot", value=0)
    one.set_fewshot_seed(seed=task.seed)


def _record(name: str, task: lm_eval.api.task.Task, sample: dict, scored: dict[tuple[str, str], Scored]) -> Record:
    choices = [str(choice) for choice in task.doc_to_choice(sample["doc"])]
    where = f"task {name}, question {sample['doc_id']}"
    if len(choices) < 2 or len(choices) != len(sample["arguments"]):
        raise UserError(
            f"{where}: {len(choices)} choices and {len(sample['arguments'])} scored; a confidence needs two or more."
        )
    outcomes = [scored[context, continuation] for context, continuation, *_ in sample["arguments"]]
    return Record(
        task=name,
        doc_id=sample["doc_id"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=choices,
        gold=_gold(name, task, sample["doc"], choices),
        choice_logprobs=[one.logprob for one in outcomes],
        choice_tokens=[len(one.token_logprobs) for one in outcomes],
        choice_greedy=[one.greedy for one in outcomes],
        token_logprobs=[one.token_logprobs for one in outcomes],
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
    )


def _gold(name: str, task: lm_eval.api.task.Task, doc: dict, choices: list[str]) -> list[int]:
    """The indices of the right choices."""
    if name == MC2:  # its target says 0 for every question; the labels are in the document
        return [i for i, label in enumerate(doc["mc2_targets"]["labels"]) if label]
    # where the choices stand before one common ending, the harness keeps the right one's index in the text
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    targets = target if isinstance(target, list) else [target]
    named = [choices.index(t) if t in choices else t for t in targets]
    gold = [int(t) for t in named if isinstance(t, int) or (isinstance(t, str) and t.isdigit())]
    if not gold or len(gold) < len(targets) or not all(0 <= g < len(choices) for g in gold):
        raise UserError(f"task {name}: the target {target!r} is none of the {len(choices)} choices {choices}.")
    return gold


def _has_own_training_split(task: lm_eval.api.task.Task) -> bool:
    scored = task.config.test_split or task.config.validation_split
    return task.config.training_split not in (None, scored) and task.config.training_split in task.dataset


def _answered(name: str, task: lm_eval.api.task.Task, doc: dict) -> str:
    """The prompt of a question and its (first) right choice."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    [right, *_] = _gold(name, task, doc, [str(choice) for choice in task.doc_to_choice(doc)])
    return "".join(task.construct_requests(doc, context)[right].args[:2])


def _check_agreement(record: Record, sample: dict) -> None:
    """The harness's own accuracy of a question and ours must be the same."""
    if "acc" not in sample:  # `run` has said so
        return
    best = max(range(len(record.choices)), key=record.choice_logprobs.__getitem__)
    ours = float(best in record.gold)
    if record.task == MC2:  # its `acc` is the probability of the right choices
        weights = [math.exp(z - record.choice_logprobs[best]) for z in record.choice_logprobs]
        ours = sum(weights[g] for g in record.gold) / sum(weights)
    if abs(ours - float(sample["acc"])) > (1e-6 if record.task == MC2 else 0):
        raise UserError(
            f"task {record.task}, question {record.doc_id}: the harness's acc is {sample['acc']}, the records' {ours}. "
            "One of the two reads the task wrongly; no number of it is reported."
        )
