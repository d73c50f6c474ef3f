"""Estimate what a piece of work takes, from the model's shape, the number of questions and how long such work took before.

Another machine, another load or longer questions take another time. Loading weights is not counted.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.base.work import COST_FILE, EntryCost, quantizing_work, read_cost, scoring_work
from bitsure.compress.model_compressibility import KIND as COMPRESSIBILITY
from bitsure.config.schema import SERVED, VLLM
from bitsure.models.size import parameters_of, width_of
from bitsure.quantize.calibration.windows import HELD_OUT_WINDOWS
from bitsure.quantize.modules import empty_modules
from bitsure.scoring.attribution.part_effects import KIND as ATTRIBUTION
from bitsure.scoring.local.budget import MOST_TOKENS
from bitsure.scoring.local.offloaded_batches import BATCHES
from bitsure.scoring.texts.text_scorer import KIND as TEXTS
from bitsure.sweep.launch.assumed_gpu import A100_QUANTIZING, A100_SPEED, are_elsewhere, gpu_here
from bitsure.sweep.launch.machine_speed import gemm_speed
from bitsure.sweep.launch.memory_estimate import (
    FLOAT,
    LIBRARIES,
    QUANTIZING_LIBRARY,
    largest_block,
    outside_blocks,
    quantizing_memory,
    scoring_memory,
    vllm_memory_on_cpu,
)

if TYPE_CHECKING:
    from torch import nn

    from bitsure.config.schema import TaskSettings
    from bitsure.quantize.plan import Plan
    from bitsure.run.preparation import PreparedRun

MODEL_SHARE_OF_GEMM = 0.3  # the share of a matrix product's speed that whole models reach, where nothing was measured
BYTES_A_QUESTION = 600  # of records and prompts, compressed
BYTES_A_TOKEN = 16  # of a text's rows, compressed
OUR_LIBRARIES = {"torch", "transformers"}  # of our own quantizers, which take one block after the other
LIBRARY_COPIES = 2.2  # memory of a model that a library quantizes as a whole ÷ memory of its weights
# Processor seconds of a command whose work is in the store, besides its cells, and of a cell: benchmarks/sweep.md, by
# `python -m benchmarks.stored_work`.
SECONDS_A_RUN, SECONDS_A_SWEEP, SECONDS_A_CELL = 6.9, 19.9, 4.2
SIDE_BY_SIDE = 2  # processes of a cell: one draws its pictures while the other goes on
CHARACTERS_A_TOKEN = 3.5
NEAREST = 5  # earlier pieces of work whose speed is taken for another of about their size


@dataclass(frozen=True)
class WorkPiece:
    """One thing that a cell needs in the store: the records of `task`, the weights of `plan`, or what is measured of these."""

    kind: str
    """The kind of the store's entry: records, texts, weights, attribution or compressibility."""
    made_from: dict[str, Any]
    """What the entry's key is the hash of."""
    run: PreparedRun
    """The run that needs it."""
    plan: Plan | None
    """How the weights are quantized; None for full precision."""
    task: str | None = None
    """The task of records."""
    is_baseline: bool = False
    """Whether it is full precision's."""

    @property
    def is_served(self) -> bool:
        """Whether a server runs the model."""
        return "server" in self.made_from

    @property
    def is_on_vllm(self) -> bool:
        """Whether vLLM scores the model in the run's process."""
        return self.made_from.get("engine") == VLLM

    @property
    def is_kept_on_cpu(self) -> bool:
        """Whether the settings keep it off GPUs."""
        return self.run.source.settings.device == "cpu"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is made on another machine, whose GPUs vLLM scores on."""
        return are_elsewhere(self.run.scorer.setup.scoring)

    @property
    def gpus(self) -> int:
        """GPUs that vLLM shares the model among; 1 for other engines."""
        return self.run.scorer.setup.scoring.vllm.gpus if self.is_on_vllm else 1


class WorkEstimate(NamedTuple):
    """What a piece of work takes on this machine."""

    seconds: float
    memory: int
    """Bytes of memory at the most."""
    disk: int
    """Bytes in the store."""


class WorkEstimator:
    """Estimates work from the recorded costs of the store's entries.

    Args:
        store: The store.
        memo: Knows models without weights, and tasks.
        on_nodes: Whether the work is for other machines, which have GPUs.
    """

    def __init__(self, store: Store, memo: Memo, on_nodes: bool = False) -> None:
        self.memo, self._on_nodes = memo, on_nodes
        # kind of work, and whether a GPU did it → operations, operations a second and GPU
        self._speeds: dict[tuple[str, bool], list[tuple[float, float]]] = defaultdict(list)
        self._tokens: dict[str, list[float]] = defaultdict(list)  # task → tokens of a question
        self._questions: dict[tuple[str, int | float | None], int] = {}  # task and limit → questions
        for file in store.root.glob(f"*/*/{COST_FILE}"):
            self._learn(file.parent)

    def _learn(self, entry: Path) -> None:
        """Remember the cost of an entry of the store; an entry that cannot be read is left out."""
        try:
            cost, made_from = read_cost(entry), json.loads((entry / "manifest.json").read_text(encoding="utf-8"))["made_from"]
            if cost is not None:
                self._remember(cost, made_from)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            return  # Another program, or another version, wrote other types or numbers.

    def _remember(self, cost: EntryCost, made_from: Mapping[str, Any]) -> None:
        """Remember what an entry cost that was made from these things."""
        if cost.what and cost.seconds and cost.work:
            gpus = math.prod(made_from.get("parallel", ()))
            self._speeds[cost.what, _was_on_gpu(cost)].append((cost.work, cost.work / cost.seconds / gpus))
        if cost.tokens and cost.questions:
            self._tokens[made_from["task"]].append(cost.tokens / cost.questions)
            self._questions[made_from["task"], made_from["limit"]] = cost.questions

    def estimate(self, piece: WorkPiece) -> WorkEstimate:
        """Return what a piece of work takes."""
        from bitsure.models.load import empty_model
        from bitsure.quantize.checkpoint import disk_space

        if piece.kind == ATTRIBUTION:
            return self._attribution(piece)
        source = piece.run.source
        model = self.memo(empty_model, source.path, source.settings.trust_remote_code)
        parameters = parameters_of(model)
        if piece.task:
            questions, tokens = self._task_size(piece, piece.task)
            what = SERVED if piece.is_served else piece.made_from.get("engine", "scoring")
            seconds = self._seconds(what, scoring_work(parameters, tokens), piece)
            return WorkEstimate(seconds, self._scoring_memory(piece, model, tokens), BYTES_A_QUESTION * questions)
        if piece.kind == TEXTS:
            states = width_of(model) * disk_space.item_bytes(piece.run.dtype) if piece.plan is None else 0
            return self._text(piece, model, states)
        plan = piece.plan
        assert plan is not None  # weights are always some plan's
        if piece.kind == COMPRESSIBILITY:  # which takes about as long as rounding to nearest, with the model in main memory
            rounding = quantizing_work(parameters, width_of(model), HELD_OUT_WINDOWS * plan.calib.seqlen)
            memory = self._scoring_memory(piece, model, piece.made_from["tokens"])
            return WorkEstimate(self._seconds(piece.kind, rounding, piece), memory, 0)
        work = quantizing_work(parameters, width_of(model), (plan.nsamples + HELD_OUT_WINDOWS) * plan.calib.seqlen)
        modules = self.memo(empty_modules, source.path, source.settings.trust_remote_code)
        disk = plan.quant.bytes_needed(model, plan.dtype)
        return WorkEstimate(self._seconds(plan.quant.name, work, piece), _quantizing_memory(modules, plan), disk)

    def _attribution(self, piece: WorkPiece) -> WorkEstimate:
        """Return what attributing takes at most: so many scorings of the run's questions and text by one model."""
        tasks = piece.run.scorer.questions.task.names
        scored = [replace(piece, kind="records", task=name) for name in tasks]
        scored += [replace(piece, kind=TEXTS)] if piece.run.text else []
        estimates = [self.estimate(each) for each in scored]
        seconds = piece.made_from["scorings"] * sum(estimate.seconds for estimate in estimates)
        return WorkEstimate(seconds, max(estimate.memory for estimate in estimates), 0)

    def _scoring_memory(self, piece: WorkPiece, model: nn.Module, tokens: int) -> int:
        """Return what scoring so many tokens takes in main memory."""
        if piece.is_served:
            return LIBRARIES
        import torch

        dtype, settings = getattr(torch, piece.run.dtype), piece.run.source.settings
        if piece.is_on_vllm:
            if self.is_on_gpu(piece):
                return (1 + piece.gpus) * LIBRARIES  # of this process and of vLLM's, one a GPU
            share = piece.run.scorer.setup.scoring.vllm.memory_share
            return vllm_memory_on_cpu(share, parameters_of(model) * dtype.itemsize)
        weights = parameters_of(model) * (2 if piece.run.attributes else 1)
        batch, plan = min(tokens, MOST_TOKENS["cpu"]), piece.run.plan
        imported = QUANTIZING_LIBRARY if plan and _uses_library(plan) else 0  # it quantizes before anything is scored
        if settings.device_map is not None and (allowed := _allowed(settings.max_memory)) < weights * dtype.itemsize:
            states = BATCHES * batch * width_of(model) * dtype.itemsize
            return imported + scoring_memory(model, dtype, batch, allowed + largest_block(model) * dtype.itemsize + states)
        return imported + scoring_memory(model, dtype, batch, weights * dtype.itemsize)

    def _text(self, piece: WorkPiece, model: nn.Module, states: int) -> WorkEstimate:
        """Return what a text takes; full precision's states, in bytes a token, are kept beside its rows."""
        text = piece.run.text
        assert text is not None  # the piece is its rows
        cut = text.cut(self.memo)
        tokens = sum(len(window) - 1 for window in cut.windows)
        seconds = self._seconds("scoring", scoring_work(parameters_of(model), tokens), piece)
        memory = self._scoring_memory(piece, model, tokens)
        return WorkEstimate(seconds, memory, (BYTES_A_TOKEN + states) * cut.n_scored)

    def _seconds(self, what: str, work: float, piece: WorkPiece) -> float:
        """Return seconds at the speed of the pieces nearest in size: small ones have fixed costs that large ones do not."""
        known = self._speeds.get((what, self.is_on_gpu(piece)), [])
        nearest = sorted(known, key=lambda earlier: abs(math.log(earlier[0] / work)))[:NEAREST]
        speed = statistics.median(speed for _, speed in nearest) if nearest else self._assumed_speed(piece)
        return work / speed / piece.gpus

    def is_on_gpu(self, piece: WorkPiece) -> bool:
        """Return whether a GPU, here or elsewhere, does a piece of work; a server's is not known."""
        has_gpu = gpu_here() is not None or self._on_nodes or piece.is_elsewhere
        return has_gpu and not piece.is_served and not piece.is_kept_on_cpu and piece.kind != COMPRESSIBILITY

    def _assumed_speed(self, piece: WorkPiece) -> float:
        """Return the operations a second, on one processor, of work of which nothing was measured before."""
        on_gpu = self.is_on_gpu(piece)
        if piece.is_served or (on_gpu and gpu_here() is None):
            return A100_QUANTIZING if piece.kind == "weights" else A100_SPEED
        return MODEL_SHARE_OF_GEMM * gemm_speed("cuda" if on_gpu else "cpu")

    def _task_size(self, piece: WorkPiece, name: str) -> tuple[int, int]:
        """Return a task's questions and tokens, as they were before or by the length of its texts."""
        task = piece.run.scorer.questions.task
        questions = self._questions.get((name, task.limit))
        if questions and self._tokens[name]:
            return questions, int(questions * statistics.median(self._tokens[name]))
        questions, characters = self.memo(self._text_size, task, name, piece.run.scorer.questions.hub_mirror)
        return questions, int(characters / CHARACTERS_A_TOKEN * (1 + (task.num_fewshot or 0)))

    def _text_size(self, task: TaskSettings, name: str, hub_mirror: str | None) -> tuple[int, int]:
        """Return a task's questions and characters."""
        from bitsure.tasks.harness_tasks import load_tasks

        return self.memo(load_tasks, task, [name], hub_mirror)[name].estimate_size(task)


def _was_on_gpu(cost: EntryCost) -> bool:
    """Return whether a GPU did the work: of vLLM, whose processes hold the tensors, that the machine has one shows it."""
    if cost.what == VLLM:
        return cost.peak_gpu_memory_bytes is not None
    return bool(cost.peak_gpu_memory_bytes) and cost.what != SERVED


def seconds_besides(cells: int, slower: float) -> float:
    """Return what a command takes besides the work of its cells.

    Args:
        cells: How many are made.
        slower: How many times as long as without other work a process takes, as by `slowdown`.
    """
    at_once = max(1.0, SIDE_BY_SIDE / slower)
    return slower * ((SECONDS_A_SWEEP if cells > 1 else SECONDS_A_RUN) + SECONDS_A_CELL * cells / at_once)


def _quantizing_memory(modules: nn.Module, plan: Plan) -> int:
    """Return what quantizing takes: of our own quantizers a block at a time, where they work by block."""
    import torch

    dtype: torch.dtype = getattr(torch, plan.dtype)
    weights = parameters_of(modules) * dtype.itemsize
    if plan.places(modules) is not None:
        return quantizing_memory(modules, plan, dtype, (outside_blocks(modules) + largest_block(modules)) * dtype.itemsize)
    if _uses_library(plan):
        states = plan.nsamples * plan.calib.seqlen * width_of(modules) * dtype.itemsize
        return LIBRARIES + QUANTIZING_LIBRARY + int(LIBRARY_COPIES * weights) + 2 * states
    copy = parameters_of(modules) * FLOAT if plan.quant.copies_model else 0
    return quantizing_memory(modules, plan, dtype, weights + copy)


def _uses_library(plan: Plan) -> bool:
    """Return whether a library quantizes the model as a whole."""
    return not set(plan.quant.libraries()) <= OUR_LIBRARIES


def _allowed(max_memory: Sequence[str] | None) -> float:
    """Return the bytes of main memory that a spread model may take; infinite if they are not limited."""
    from accelerate.utils import convert_file_size_to_int

    parts = dict(part.rsplit(":", 1) for part in max_memory or ())
    return int(convert_file_size_to_int(parts["cpu"])) if "cpu" in parts else math.inf
