"""The cost of scoring all tasks, from the costs that the store keeps with each task's records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bitsure.base.work import EntryCost
from bitsure.results.costs import ScoringCosts, TaskCosts


def total_costs(by_task: Mapping[str, EntryCost | None]) -> ScoringCosts | None:
    """Return what scoring cost, over all tasks and for each.

    Args:
        by_task: Task → its cost; None for a task whose scoring was interrupted and resumed: its whole cost is unknown.

    Returns:
        The sums of seconds and tokens and the highest peaks over the tasks whose cost is known; None if there is no such task.
    """
    known = {task: _task_costs(cost) for task, cost in by_task.items() if cost is not None}
    if not known:
        return None
    costs = known.values()
    seconds, tokens = sum(cost.seconds for cost in costs), sum(cost.tokens for cost in costs)
    return ScoringCosts(
        seconds=seconds,
        tokens=tokens,
        peak_memory_bytes=_highest(cost.peak_memory_bytes for cost in costs),
        peak_gpu_memory_bytes=_highest(cost.peak_gpu_memory_bytes for cost in costs),
        tokens_per_second=tokens / seconds if seconds else None,
        by_task=known,
    )


def _task_costs(cost: EntryCost) -> TaskCosts:
    tokens = cost.tokens or 0
    return TaskCosts(
        tokens=tokens,
        seconds=cost.seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
        peak_gpu_memory_bytes=cost.peak_gpu_memory_bytes,
        tokens_per_second=tokens / cost.seconds if cost.seconds else None,
    )


def _highest(peaks: Iterable[int | None]) -> int | None:
    return max((peak for peak in peaks if peak is not None), default=None)
