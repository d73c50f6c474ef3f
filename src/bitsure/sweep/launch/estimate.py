"""About what a piece of work takes: from the model's shape, the number of questions, and what such work took before.

An estimate, no promise: another machine, another load or longer questions make another time.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.base.work import COST_FILE, parameters_of, quantizing_work, scoring_work, width_of

if TYPE_CHECKING:
    from bitsure.config.schema import TaskSettings
    from bitsure.quantize.plan import Plan
    from bitsure.run.pipeline import Cell

OF_GEMM = 0.3  # the share of a matrix product's speed that whole models reach, where nothing was measured
BYTES_A_QUESTION = 600  # of records and prompts, compressed
BYTES_A_PROCESS = 600 * 2**20  # of memory that Python and the libraries hold, beside a model: costs.json of pocket models
SECONDS_A_CELL = 2.0  # beside what is made: see benchmarks/sweep.md
CHARACTERS_A_TOKEN = 3.5
NEAREST = 5  # pieces of work that say how fast another of about their size is


@dataclass(frozen=True)
class Piece:
    """One thing that a cell needs in the store: a task's records (`task`), or the weights of `plan`."""

    kind: str  # of the store's entry
    made_from: dict
    cell: Cell
    plan: Plan | None  # None: full precision
    task: str | None = None


class Estimate(NamedTuple):
    """Seconds on this machine, and bytes."""

    seconds: float
    memory: int
    disk: int


class Estimator:
    """Knows what such work took before, by the store's entries."""

    def __init__(self, store: Store, memo: Memo):
        self.store, self.memo = store, memo
        self._took: dict[str, list[tuple[float, float]]] = defaultdict(list)  # operations and seconds, by what was done
        self._tokens: dict[str, list[float]] = defaultdict(list)  # of a question, by task
        self._questions: dict[tuple, int] = {}
        for file in store.root.glob(f"*/*/{COST_FILE}"):
            self._learn(file)

    def _learn(self, file: Path) -> None:
        try:
            cost, made_from = json.loads(file.read_text()), json.loads((file.parent / "manifest.json").read_text())["made_from"]
        except (OSError, ValueError, KeyError):
            return
        if cost["seconds"] > 0 and cost["work"] > 0:
            self._took[cost["what"]].append((cost["work"], cost["seconds"]))
        if "tokens" in cost:
            self._tokens[made_from["task"]].append(cost["tokens"] / cost["questions"])
            self._questions[made_from["task"], made_from["limit"]] = cost["questions"]

    def __call__(self, piece: Piece) -> Estimate:
        from bitsure.models import source as models
        from bitsure.quantize.checkpoint import disk_space

        source = piece.cell.source
        model = self.memo(models.empty_model, source.path, source.settings.trust_remote_code)
        parameters = parameters_of(model)
        memory = BYTES_A_PROCESS + int(parameters * disk_space.item_bytes(piece.cell.dtype) * 1.3)
        if piece.task:
            questions, tokens = self._task(piece)
            return Estimate(self._seconds("scoring", scoring_work(parameters, tokens)), memory, BYTES_A_QUESTION * questions)
        plan = piece.plan
        work = quantizing_work(parameters, width_of(model), (plan.nsamples + 8) * plan.calib.seqlen)
        states = plan.nsamples * plan.calib.seqlen * width_of(model) * 4
        return Estimate(self._seconds(plan.quant.name, work), memory + states, plan.quant.bytes_needed(model, plan.dtype))

    def _seconds(self, what: str, work: float) -> float:
        """By the speed of the pieces nearest in size: a small one's fixed costs are no measure of a large one's speed."""
        nearest = sorted(self._took.get(what, []), key=lambda one: abs(math.log(one[0] / work)))[:NEAREST]
        speed = statistics.median(done / seconds for done, seconds in nearest) if nearest else OF_GEMM * _gemm()
        return work / speed

    def _task(self, piece: Piece) -> tuple[int, int]:
        """Questions and tokens of a task: as they were before, or by the length of its texts."""
        task = piece.cell.scorer.questions.task
        before = self._questions.get((piece.task, task.limit))
        if before and self._tokens[piece.task]:
            return before, int(before * statistics.median(self._tokens[piece.task]))
        questions, characters = self.memo(self._size, task, piece.task, piece.cell.scorer.questions.hub_mirror)
        return questions, int(characters / CHARACTERS_A_TOKEN * (1 + (task.num_fewshot or 0)))

    def _size(self, task: TaskSettings, name: str, hub_mirror: str | None) -> tuple[int, int]:
        from bitsure.tasks import harness_tasks

        return self.memo(harness_tasks.load_tasks, task, [name], hub_mirror)[name].estimate_size(task.limit)


@functools.cache
def _gemm() -> float:
    """Floating-point operations a second of a matrix product on this machine: the best of a few."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, n, best = torch.rand(1024, 1024, device=device), 5, 0.0
    for _ in range(n):
        started = time.perf_counter()
        (a @ a).sum().item()
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started))
    return best
