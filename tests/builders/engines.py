"""The harness's model with the local engine, as the scorer makes it, and a task scored with it."""

from __future__ import annotations

from functools import partial

from bitsure.config.schema import TaskSettings
from bitsure.records.record import Record


def hooked_lm(model, tokenizer, add_bos=None, share=True, score_bos=False):
    from bitsure.scoring.generation.text_generator import TextGenerator
    from bitsure.scoring.hooked_lm import HookedLM
    from bitsure.scoring.local.local_engine import LocalEngine

    lm = HookedLM(model, tokenizer, partial(LocalEngine, model, share=share), lambda n: None, add_bos, score_bos)
    lm.generator = TextGenerator(model, lm.tokenizer, share)
    return lm


def scored(task: TaskSettings, model, tokenizer) -> tuple[list[Record], list[str]]:
    """Return the records and the prompts of the only task of some settings."""
    from bitsure.scoring.harness import evaluate_tasks
    from bitsure.tasks.harness_tasks import load_tasks

    [name] = task.names
    return evaluate_tasks(load_tasks(task, [name], None)[name], hooked_lm(model, tokenizer, task.add_bos), task)[:2]
