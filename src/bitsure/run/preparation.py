"""What a run is about to do, found and checked before any weights are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitsure import results
from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import VLLM, Config
from bitsure.config.text import OF_ANSWERS, OF_TASKS
from bitsure.metrics.own_metrics import check_own_metrics
from bitsure.models.facts import check_memory, computing_dtype, is_mixture
from bitsure.models.load import check_files, empty_model
from bitsure.models.locate import Source, locate_model, locate_scored, locate_tokenizer
from bitsure.models.weight_files import has_weights
from bitsure.quantize.calibration.calibration_text import locate_text, stands_in
from bitsure.quantize.check import check_model, check_plan
from bitsure.quantize.libraries.prequantized import locate as locate_checkpoint
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import Quantizer
from bitsure.results import Provenance
from bitsure.run.wandb_run import check_login
from bitsure.scoring.attribution.sample import NOTHING
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scorer import Scorer
from bitsure.scoring.served.server import Server, contact
from bitsure.scoring.served.vllm_program import vllm_version
from bitsure.scoring.texts.task_prompts import TaskPrompts
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_scorer import TextScorer
from bitsure.scoring.texts.written_text import WrittenText
from bitsure.tasks.harness_names import check_task_names
from bitsure.tasks.kinds import MultipleChoice
from bitsure.tasks.open_questions import OPEN, SECOND

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """What the settings of a run name, found on this machine.

    Attributes:
        full_precision: The model in full precision.
        scored: The model that the run is about: quantized, or in full precision where nothing is quantized.
        dtype: The type that is computed in, such as `float32`.
        plan: What is to be quantized, how and with which text; None where nothing is quantized here.
        scorer: What scores models on the run's tasks.
        text: What scores models on the run's text; None where there is none.
        compared_answers: What scores full precision on its own answers, and on the quantized model's; None where that is not
            asked for.
        store: Where weights and records are kept.
        log_file: Where the output of libraries goes.
        attributes: Whether the loss is attributed to parts of the model.
    """

    full_precision: ScoredModel
    scored: ScoredModel
    dtype: str
    plan: Plan | None
    scorer: Scorer
    text: TextScorer | None
    compared_answers: tuple[TextScorer, TextScorer] | None
    store: Store
    log_file: Path
    attributes: bool = False

    @property
    def source(self) -> Source:
        """The full-precision model's files; of one that a server runs, its tokenizer and config."""
        return self.full_precision.source

    @property
    def is_pair(self) -> bool:
        """Whether a quantized model is compared with full precision."""
        return self.scored != self.full_precision

    @property
    def models(self) -> dict[str, ScoredModel]:
        """The models that are scored: full precision, and the quantized one of a pair."""
        return {"full precision": self.full_precision} | ({"quantized": self.scored} if self.is_pair else {})

    @property
    def scored_before(self) -> list[str]:
        """The models of which the store has all records; device, device_map and batch do not tell records apart."""
        kept, text = self.scorer.kept, self.text
        return [name for name, model in self.models.items() if not (kept.missing(model) or (text and text.missing(model)))]

    @property
    def servers(self) -> dict[str, Server]:
        """The servers that run models, by what they run."""
        return {name: model.server for name, model in self.models.items() if model.server}

    @property
    def weights(self) -> dict[str, Any] | None:
        """What the quantized weights are made from, which is their key in the store; None in full precision."""
        if self.is_pair and self.scored.server:
            return {"quant": {"method": "served", **self.scored.server.key}}
        return self.scored.weights


def prepare(config: Config, log_file: Path, memo: Memo, on_wait: Callable[[float], None] = lambda seconds: None) -> PreparedRun:
    """Find everything that the settings name.

    Args:
        config: The settings.
        log_file: Where the output of libraries goes.
        memo: Remembers what other cells of a sweep have in common with this one.
        on_wait: As in `Store`.

    Raises:
        UserError: If a file or data set is unavailable, or settings contradict each other.
    """
    check_own_metrics(config.metric)
    memo(check_task_names, config.task)
    store, mirror = Store(config.paths.store, on_wait), config.paths.hub_mirror
    quantizer = check_model(config.model, config.quant, config.control.seeds > 0)
    with terminal.output_to(log_file):
        memo(check_login, config.tracking)
        full = _full_precision(config, quantizer, store, memo)
        source = full.source
        dtype = memo(computing_dtype, config.model, source.path)
    if not config.scoring.dequantize and dtype == "float32":
        raise UserError("scoring.dequantize=false: packed kernels compute in half precision. Add model.dtype=bfloat16.")
    plan, scored = None, full
    if quantizer.server:
        with terminal.output_to(log_file):
            served = memo(locate_tokenizer, config.model, mirror, store)
            scored = ScoredModel(served, server=memo(contact, quantizer.server, config.server, served, store))
        if scored == full:
            raise UserError(f"{quantizer.server.given} is the model that it would be compared with. Give the quantized one's.")
    elif not quantizer.is_full_precision:
        with terminal.output_to(log_file):
            text = memo(locate_text, config.calib, mirror, config.task, store)
            source = memo(
                locate_model, config.model, mirror, store, planned=config.plan
            )  # with its weights, also where a server runs it
        if config.calib.all_experts:
            _check_mixture(source)
        plan = Plan(source, quantizer, config.calib, text, dtype, locate_checkpoint(quantizer, mirror, store))
        if plan.nsamples and stands_in(text, config.calib):
            memo(log.warning, "calibration text: %s", text.name)
        scored = ScoredModel(source, plan.made_from)
    questions = memo(locate_questions, config.task, mirror)
    scorer = Scorer(questions, config.scoring, dtype, store, log_file)
    of_tasks = {OF_TASKS: TaskPrompts, OF_ANSWERS: WrittenText}.get(config.text.name)
    scored_text = of_tasks(scorer) if of_tasks else memo(locate_text_file, config.text, mirror, store)
    text_scorer = TextScorer(scored_text, scorer.setup, source, store, log_file) if scored_text else None
    compared_answers = None
    if plan and config.task.preference:
        own, other = (TextScorer(WrittenText(scorer, each), scorer.setup, source, store, log_file) for each in (full, scored))
        compared_answers = own, other
    _log_what_is_left_out(config, full.source, memo)
    attributes = config.attribution.measure and plan is not None
    if config.attribution.measure and not attributes:
        memo(log.warning, "attribution.measure=true: no weights are quantized here, so that nothing is attributed")
    return PreparedRun(full, scored, dtype, plan, scorer, text_scorer, compared_answers, store, log_file, attributes)


def _check_mixture(source: Source) -> None:
    """Raise UserError if a model's config names no experts, for `calib.all_experts`."""
    if not is_mixture(source.path):
        raise UserError(
            f"calib.all_experts=true: {source.name} is no mixture of experts by its config.json, so that every token reaches "
            "every layer. Leave it out."
        )


def _log_what_is_left_out(config: Config, source: Source, memo: Memo) -> None:
    """Say which settings of written answers have no effect in this run, and whether another model gave the first answers."""
    task = config.task
    if task.preference and config.quant.is_full_precision:
        memo(log.info, "task.preference=true: nothing is quantized, so that there are no two answers to choose from")
    if task.limit is not None and config.text.is_scored and not config.text.is_of_tasks and config.text.limit is None:
        memo(
            log.info,
            "task.limit=%s: takes fewer questions; the text is scored whole (text.limit=N: its first N tokens)",
            task.limit,
        )
    if config.metric.own and set(task.names) & set(OPEN):
        memo(log.info, "metric.own: not measured for open questions, which have no right answers")
    if SECOND in task.names and task.open.first_answers:
        origin = None
        with suppress(UserError):  # a file of another version says nothing
            origin = results.read_if_there(Path(task.open.first_answers) / "provenance.json", Provenance)
        if origin and origin.model and origin.model.fingerprint != source.fingerprint:
            given = f"task.open.first_answers={task.open.first_answers}"
            memo(log.warning, "%s: another model, %s, gave the first answers", given, origin.model.name)


def _full_precision(config: Config, quantizer: Quantizer, store: Store, memo: Memo) -> ScoredModel:
    """Return the model in full precision, as it is found here or as a server has it.

    Raises:
        UserError: If files are missing, or a server cannot be scored with.
    """
    mirror, address = config.paths.hub_mirror, config.model.server
    if (address or quantizer.server) and config.text.is_scored:
        raise UserError(
            f"text={config.text.name}: texts are scored by models that run here: a server does not give the probabilities of "
            "the whole vocabulary. Leave it out."
        )
    settings = config.model
    if config.scoring.engine == VLLM:
        if not config.plan:  # which may be for another machine
            memo(vllm_version)
        settings = replace(settings, parameters=None)  # for which one device need not have the memory
    source = memo(locate_scored, settings, mirror, store, config.plan)
    return ScoredModel(source, server=memo(contact, address, config.server, source, store) if address else None)


def check(prepared: PreparedRun, memo: Memo, runs_here: bool = True) -> None:
    """Raise UserError for what is wrong with model, prompts and quantizer, as far as it is known without weights.

    Args:
        prepared: The run.
        memo: What was checked for other cells of a sweep.
        runs_here: Whether it runs on this machine, whose TMPDIR must have room.
    """
    prepared.scorer.check_prompting(prepared.source)
    if prepared.attributes:
        check_memory(prepared.source.settings, prepared.dtype, other_copies=[prepared.dtype])  # full precision and quantized
    scored = (prepared.full_precision, prepared.scored)
    without_text = prepared.text is not None and any(prepared.text.missing(model) for model in scored)
    if prepared.text and without_text and not prepared.text.text.needs_answers:
        prepared.text.cut(memo)
    # What a server lacks, contacting it has shown; a plan needs no weights.
    is_here = prepared.full_precision.server is None and has_weights(prepared.source.path)
    if is_here and (without_text or any(prepared.scorer.kept.missing(model) for model in scored)):
        with terminal.output_to(prepared.log_file):
            memo(check_files, prepared.source.path, prepared.source.settings.trust_remote_code)
    _check_scoring_memory(prepared)
    scoring = prepared.scorer.setup.scoring
    unpacks = prepared.plan is not None and scoring.engine == VLLM and scoring.dequantize
    if unpacks and runs_here and prepared.scorer.kept.missing(prepared.scored):
        from bitsure.quantize.checkpoint import disk_space

        trust_remote_code = prepared.source.settings.trust_remote_code
        disk_space.check_unpacked(memo(empty_model, prepared.source.path, trust_remote_code), prepared.dtype)
    if prepared.plan and not prepared.store.find("weights", prepared.plan.made_from):
        with terminal.output_to(prepared.log_file):
            check_plan(prepared.plan, prepared.store, memo)


def _check_scoring_memory(prepared: PreparedRun) -> None:
    """Raise UserError if the local engine is to score a model that does not fit, before anything is quantized."""
    scoring, kept, text = prepared.scorer.setup.scoring, prepared.scorer.kept, prepared.text
    whole = [prepared.full_precision, *([prepared.scored] if scoring.dequantize else [])]
    here = [model for model in whole if model.server is None]
    if scoring.engine != VLLM and any(kept.missing(model) or (text and text.missing(model)) for model in here):
        check_memory(prepared.source.settings, prepared.dtype)


def load_tasks(prepared: PreparedRun, memo: Memo) -> None:
    """Load the tasks that the store has no records of.

    Raises:
        UserError: If a task cannot be scored, or a setting is for written answers and no task has any.
    """
    prepared.scorer.load_missing(prepared.full_precision, memo)
    prepared.scorer.load_missing(prepared.scored, memo)
    task, text, kept = prepared.scorer.questions.task, prepared.text, prepared.scorer.kept
    if prepared.attributes and text is None and kept.has_written_answers:
        loaded = [each for tasks in prepared.scorer.load_tasks(memo) for each in tasks.tasks.values()]
        if not any(MultipleChoice.output_type == each.OUTPUT_TYPE for each in loaded):
            raise UserError(NOTHING)
    by_others = prepared.servers or prepared.scorer.setup.scoring.engine == VLLM
    if by_others and kept.has_written_answers:
        raise UserError(
            f"task.names=[{','.join(task.names)}]: answers are written by scoring.engine=local, and servers and vLLM are only "
            "asked for log-probabilities. Leave out the tasks whose answers the model writes."
        )
    given = {f"task.samples={task.samples}": task.samples > 0, "task.p_true=true": task.p_true}
    given["task.preference=true"] = task.preference
    given |= {f"text={OF_ANSWERS}": text is not None and text.text.needs_answers}
    if (unused := [setting for setting, is_given in given.items() if is_given]) and not kept.has_written_answers:
        raise UserError(
            f"{unused[0]}: of the tasks {', '.join(task.names)} none has answers that the model writes. Leave it out, or name "
            "such a task, as gsm8k is."
        )
