"""Whether the texts in which questions ask to find something fit into a model's context: a cut text may lack the answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import original_task
from bitsure.config.schema import TaskSettings
from bitsure.models.facts import context_length
from bitsure.records.record import place_of
from bitsure.tasks.few_shots import repeatable_draws
from bitsure.tasks.harness_tasks import LoadedTasks, asked
from bitsure.tasks.kinds import kind_of
from bitsure.tasks.protocols import HarnessTask
from bitsure.tasks.retrieval_tasks import KINDS

if TYPE_CHECKING:
    from bitsure.models.locate import Source

MEASURED = 8  # questions whose tokens are counted: the one with most characters may not have most tokens


def check_searched_texts(loaded: Mapping[str, LoadedTasks], settings: TaskSettings, source: Source) -> None:
    """Check the longest question of each task whose documents have a length and a depth.

    Args:
        loaded: Name → its tasks.
        settings: How the questions are put.
        source: The model.

    Raises:
        UserError: If one is longer than the model's context.
    """
    tasks = {name: task for of_name in loaded.values() for name, task in of_name.tasks.items()}
    longest = {name: texts for name, task in tasks.items() if (texts := _longest(name, task, settings))}
    context = context_length(source.path) if longest else None
    if context is None:
        return
    tokenizer = source.load_tokenizer()
    for name, texts in longest.items():
        tokens, text = max((len(tokenizer(text)["input_ids"]), text) for text in texts)
        if tokens > context + 1:  # nothing follows on the last token
            shorter = "Give task.retrieval.lengths that fit" if original_task(name) in KINDS else "Ask for shorter texts"
            raise UserError(
                f"task.names: {name}: a question of {len(text.split()):,} words has {tokens:,} tokens, and this model's "
                f"context {context:,}, so that what is to be found would be cut off. {shorter}, "
                "fewer examples (task.num_fewshot), or a model with a longer context."
            )


def _longest(name: str, task: HarnessTask, settings: TaskSettings) -> list[str]:
    """Return the questions with most characters, with their examples and right answers; none unless texts are searched."""
    if not any(place_of(doc)[0] for doc in islice(task.eval_docs, 1)):
        return []
    docs = asked(task, settings)
    questions = [kind_of(task).answered_text(name, task, doc) for doc in docs]
    if examples := task.get_config("num_fewshot"):
        with repeatable_draws([task], settings.seed):
            prompts = [task.fewshot_context(doc, num_fewshot=examples, gen_prefix=task.doc_to_prefix(doc)) for doc in docs]
        alone = [task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc)) for doc in docs]
        parts = zip(prompts, alone, questions, strict=True)
        questions = [f"{prompt}{question.removeprefix(str(without))}" for prompt, without, question in parts]
    return sorted(questions, key=len)[-MEASURED:]
