"""The harness's filters of written answers, applied to one answer at a time."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.api.instance import Instance as HarnessInstance

from bitsure.tasks.protocols import Document, HarnessTask


def filter_each(task: HarnessTask, name: str, docs: Sequence[Document], answers: Sequence[str]) -> list[str]:
    """Return what a task's filter makes of each answer by itself.

    Filters that take several answers together, as a majority vote does, are given one as often as the task's `repeats` say.

    Args:
        task: The task.
        name: The filter's name.
        docs: The document that each answer is to.
        answers: The answers' texts.
    """
    if not answers:
        return []
    repeats = int(task.get_config("repeats") or 1)
    instances = [
        HarnessInstance("generate_until", doc, ("", {}), i, resps=[answer] * repeats)
        for i, (doc, answer) in enumerate(zip(docs, answers, strict=True))
    ]
    [ensemble] = [ensemble for ensemble in task._filters if ensemble.name == name]
    ensemble.apply(instances)
    return [str(instance.filtered_resps[name]) for instance in instances]
