"""One run from start to end: check, quantize and prove, score, compare, report, log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.compress.model_compressibility import ensure_compressibility, headline
from bitsure.config.quantizers import Rounded
from bitsure.config.schema import Config, ControlSettings, resolved
from bitsure.metrics.part_attribution import attribute
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.mixed.recipe import RECIPE, Recipe, grid_of
from bitsure.quantize.plan import Plan
from bitsure.records import Records, read_prompts, write_records
from bitsure.records.answer_preferences import with_preferences
from bitsure.records.answer_units import answer_units
from bitsure.records.directory_kinds import RECORDS
from bitsure.records.generations import GENERATIONS_TABLE
from bitsure.records.record import SCHEMA
from bitsure.records.saved_run import BASELINE, generations_beside, texts_beside
from bitsure.records.text_tokens import TEXTS_TABLE
from bitsure.records.text_units import text_units, with_units
from bitsure.report import terminal_summary
from bitsure.report.report_contents import About, run_title
from bitsure.report.run_report import build
from bitsure.results import Attribution, Compressibility, Costs, Labels, Quantization, Verdict
from bitsure.results.costs import ScoringCosts, WorkCosts
from bitsure.results.verdict import NON_INFERIOR
from bitsure.run import provenance, tracking, wandb_run
from bitsure.run.directory import RunDirectory, open_run
from bitsure.run.preparation import PreparedRun, check, load_tasks, prepare
from bitsure.scoring.attribution.part_effects import AttributedRun
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scoring_costs import total_costs


@dataclass(frozen=True)
class QuantizedRun:
    """The results of quantizing: the proof, and how far its codes compress (None for weights without codes)."""

    proof: Quantization
    compressibility: Compressibility | None


@dataclass(frozen=True)
class ScoredRun:
    """What the run's model scored, and full precision (None where the run is full precision itself).

    Both are records under one schema: questions, then the documents or windows of the text.
    """

    records: pa.Table
    baseline: pa.Table | None


def run(
    config: Config,
    run_dir: Path,
    sweep: str | None = None,
    on_wait: Callable[[float], None] = lambda seconds: None,
    labels: Labels | None = None,
) -> None:
    """Run one cell and write its directory.

    Args:
        config: The settings.
        run_dir: Where everything is written; docs/results.md names the files.
        sweep: The name of the sweep that the run belongs to, if any.
        on_wait: Called with seconds while the run waits for another one that makes what it needs.
        labels: What the command calls model and quantizer; None for their names.

    Raises:
        UserError: If something is wrong that the user can mend; before weights are loaded wherever that is possible.
    """
    settings, memo = resolved(config), Memo()
    labels = labels or provenance.full_names(config)
    with open_run(run_dir, settings) as current:
        origin = provenance.collect(labels)
        current.write_json("provenance.json", origin)
        with current.stage("check"):
            prepared = prepare(config, run_dir / "libraries.log", memo, on_wait)
            wandb_run.start_service(config.tracking)
            check(prepared, memo)
            origin = provenance.with_settings(origin, prepared, config.metric)
            current.write_json("provenance.json", origin)
        with current.stage("load tasks"):
            load_tasks(prepared, memo)
        reused = _reused(prepared)
        with tracking.track_run(config, settings, run_dir, sweep, prepared.log_file, labels) as tracker:
            quantized = _quantize(prepared, config, current) if prepared.plan else None
            scored = _score(prepared, config, current)
            origin = provenance.with_data(origin, prepared)
            current.write_json("provenance.json", origin)
            costs = _costs(prepared, quantized)
            current.write_json("costs.json", costs)
            attribution = _attribute(prepared, quantized, config, current)
            with current.stage("noise control"):
                noisy = _score_noise(prepared, config.control, run_dir / "noise_control")
            with current.stage("report"):
                about = About(
                    title=run_title(labels, config.quant.name if prepared.is_pair else None),
                    quantization=quantized.proof if quantized else None,
                    provenance=origin,
                    prompts=_prompts(prepared, run_dir / "prompts.parquet"),
                    noisy=noisy,
                    noise_scale=config.control.scale,
                    compressibility=quantized.compressibility if quantized else None,
                    attribution=attribution,
                    task=asdict(config.task),
                    tracked=tracker.where,
                    has_page=config.sweep.pages or sweep is None,
                )
                report = build(run_dir, scored.records, scored.baseline, config.metric, config.verdict, about)
            with current.stage("track"):
                tracker.log(tracking.TrackedRun(report, about, costs, scored.records, scored.baseline, config.metric))
        if tracker.warning:
            current.warn(tracker.warning)
    if sweep is None:  # the line of a sweep's cell is its launcher's, and all of this is on its page
        places: dict[str, object] = {"report": report.page, "records": run_dir / "records.parquet", "reused": reused}
        places |= {"checkpoint": about.checkpoint_in_words, "W&B": tracker.where}
        terminal_summary.show(report, about, config.metric, places)
    if report.verdict:
        _check_strict(config, report.verdict, run_dir)


def _reused(prepared: PreparedRun) -> str | None:
    """Return which models are not scored in this run, and how they would be; None if all are."""
    if not (names := prepared.scored_before):
        return None
    return f"records of {' and '.join(names)}, scored before; BITSURE_STORE=NEW_DIR before the command scores anew"


def _quantize(prepared: PreparedRun, config: Config, current: RunDirectory) -> QuantizedRun:
    """Quantize, measure how far the codes compress, and write quantization.json and compressibility.json."""
    plan, store, log_file = prepared.plan, prepared.store, prepared.log_file
    assert plan is not None
    with current.stage("quantize"):
        to_read = bool(prepared.scorer.kept.missing(prepared.scored, to_read=True))
        quantized = ensure_quantized(plan, store, log_file, to_read)
    with current.stage("compress"):
        compressibility = None
        if config.compress.measure:
            compressibility = ensure_compressibility(plan, _hashed(plan, prepared), config.compress, store, log_file)
        proof = quantized.proof.model_copy(update=headline(compressibility) | {"checkpoint": str(quantized.shipped.absolute())})
        current.write_json("quantization.json", proof)
        if (recipe := quantized.checkpoint / RECIPE).is_file():
            shutil.copyfile(recipe, current.path / RECIPE)
        if compressibility:
            current.write_json("compressibility.json", compressibility)
    return QuantizedRun(proof, compressibility)


def _attribute(
    prepared: PreparedRun, quantized: QuantizedRun | None, config: Config, current: RunDirectory
) -> Attribution | None:
    """Attribute the loss of fidelity to parts of the model, and write attribution.json; None where that is not asked for."""
    plan, settings = prepared.plan, config.attribution
    if plan is None or quantized is None or not settings.measure:
        return None
    with current.stage("attribute"):
        run = AttributedRun(plan, prepared.scorer, prepared.text, settings, prepared.store, prepared.log_file)
        measured = run.ensure(_hashed(plan, prepared))
        attribution = attribute(measured, quantized.proof.bits_per_weight, config.metric.confidence_level)
        if measured.kept_layers:
            chosen = {"model": plan.source.name, "kept": measured.kept_layers.layers}
            grid = grid_of(plan.quant) if isinstance(plan.quant, Rounded) else {}
            Recipe(measured.kept_layers.recipe, chosen, grid).write(current.path / RECIPE)
        current.write_json("attribution.json", attribution)
    return attribution


def _hashed(plan: Plan, prepared: PreparedRun) -> Callable[[], Path]:
    """Return a function for those who are about to read quantized weights: it hashes their files and returns where they lie."""
    return lambda: ensure_quantized(plan, prepared.store, prepared.log_file, to_read=True).checkpoint


def _score(prepared: PreparedRun, config: Config, current: RunDirectory) -> ScoredRun:
    """Score full precision and then the quantized model, and write their records."""
    scorer, full, baseline = prepared.scorer, prepared.full_precision, None
    own_file, full_file = (current.path / name for name in (RECORDS, BASELINE))
    with current.stage("score full precision"):
        records = scorer.score(full, None, "full precision")
        units = _score_text(prepared, full, None, "full precision", full_file if prepared.is_pair else own_file)
    if prepared.is_pair:
        baseline_units = units
        checkpoint = _hashed(prepared.plan, prepared) if prepared.plan else None
        with current.stage("score quantized"):
            records, baseline = scorer.score(prepared.scored, checkpoint, "quantized"), records
            units = _score_text(prepared, prepared.scored, checkpoint, "quantized", own_file)
        if scorer.kept.missing(full):  # the store's were of other prompts than those that tasks have now
            with current.stage("score full precision"):
                baseline = scorer.score(full, None, "full precision")
        baseline = with_units(_write_answers(prepared, full, baseline, full_file), baseline_units)
    with current.stage("score full precision"):  # which may read the quantized model's answers
        records = _write_answers(prepared, prepared.scored, records, own_file)
    return ScoredRun(with_units(records, units), baseline)


def _write_answers(prepared: PreparedRun, model: ScoredModel, records: pa.Table, file: Path) -> pa.Table:
    """Write a model's records, and the answers that it wrote beside them. Returns both as records."""
    kept = prepared.scorer.kept
    keys, generations = kept.keys(model), kept.generations(model)
    if prepared.compared_answers and model == prepared.scored:
        full = prepared.full_precision
        own_tokens, tokens = (answers.score(full, None, "full precision") for answers in prepared.compared_answers)
        generations = with_preferences(generations, tokens, kept.generations(full), own_tokens)
    write_records(file, records, keys)
    if not len(generations):
        return records
    generations_file = generations_beside(file)
    generations_file.parent.mkdir(exist_ok=True)
    GENERATIONS_TABLE.write(generations_file, generations, keys)
    return with_units(records, answer_units(generations))


def _score_text(
    prepared: PreparedRun, model: ScoredModel, checkpoint: Callable[[], Path] | None, label: str, file: Path
) -> pa.Table:
    """Return the documents or windows of the run's text as a model scored them; their tokens are written beside its records."""
    if prepared.text is None:
        return SCHEMA.empty_table()
    texts_file = texts_beside(file)
    texts_file.parent.mkdir(exist_ok=True)
    tokens = prepared.text.score(model, checkpoint, label)
    made_from = prepared.text.made_from(model, tokens)
    TEXTS_TABLE.write(texts_file, tokens, made_from)
    return text_units(tokens, made_from)


def _score_noise(prepared: PreparedRun, control: ControlSettings, folder: Path) -> list[Records]:
    """Return the records of each noise control of the run's quantizer, which are also written into `folder`."""
    if not control.seeds:
        return []
    assert prepared.plan is not None
    folder.mkdir(exist_ok=True)
    plans = {seed: prepared.plan.noise(seed, control.scale) for seed in range(control.seeds)}
    return [_score_control(prepared, plan, folder / f"{seed:03d}.parquet") for seed, plan in plans.items()]


def _score_control(prepared: PreparedRun, plan: Plan, file: Path) -> Records:
    model, checkpoint, label = ScoredModel(plan.source, plan.made_from), _hashed(plan, prepared), plan.quant.name
    answers = _write_answers(prepared, model, prepared.scorer.score(model, checkpoint, label), file)
    return with_units(answers, _score_text(prepared, model, checkpoint, label, file))


def _prompts(prepared: PreparedRun, file: Path) -> dict[tuple[str, int], str]:
    prepared.scorer.kept.write_prompts(prepared.full_precision, file)
    return read_prompts(file)


def _costs(prepared: PreparedRun, quantized: QuantizedRun | None) -> Costs:
    """Return what quantizing and scoring cost when their results were made, which may have been in another run."""
    proof = quantized.proof if quantized else None
    return Costs(
        quantizing=WorkCosts(**{name: getattr(proof, name) for name in WorkCosts.model_fields}) if proof else None,
        scoring_full_precision=_scoring_costs(prepared, prepared.full_precision),
        scoring_quantized=_scoring_costs(prepared, prepared.scored) if prepared.is_pair else None,
    )


def _scoring_costs(prepared: PreparedRun, model: ScoredModel) -> ScoringCosts | None:
    of_text = {prepared.text.text.task: prepared.text.cost(model)} if prepared.text else {}
    return total_costs(prepared.scorer.kept.costs(model) | of_text)


def _check_strict(config: Config, verdict: Verdict, run_dir: Path) -> None:
    if config.verdict.strict and verdict.verdict != NON_INFERIOR:
        name = f"{config.model.name} with {config.quant.name}"
        sentence = f"{verdict.sentence} {verdict.settles}".strip()
        raise UserError(f"verdict=strict: {name} is {verdict.verdict}. {sentence} See {run_dir / 'report.html'}.")
