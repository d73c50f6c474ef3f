"""The whole story of one cell: config → model → quantize + verify → score → records → metrics → comparison → report, W&B."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.comparison.non_inferiority import NON_INFERIOR
from bitsure.compress import compressibility as compress
from bitsure.config.schema import Config, resolved
from bitsure.metrics.own_metrics import check_own_metrics
from bitsure.models.facts import computing_dtype
from bitsure.models.locate import Source, locate_model
from bitsure.models.size import measure_size
from bitsure.quantize.calibration.texts import locate_text
from bitsure.quantize.check import check_model, check_plan
from bitsure.quantize.libraries import prequantized
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.plan import Plan
from bitsure.records.parquet import read_prompts, write_records
from bitsure.records.record import Records
from bitsure.report import terminal_summary
from bitsure.report.contents import About
from bitsure.report.run_report import build
from bitsure.results import Costs, Provenance, Quantization, Verdict, to_plain
from bitsure.results.costs import WorkCosts
from bitsure.run import provenance, tracking, wandb_run
from bitsure.run.directory import open_run
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scorer import Scorer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """What a run is about to do; all of it has been checked, no weights are loaded."""

    source: Source
    dtype: str
    plan: Plan | None  # None: full precision alone
    scorer: Scorer
    store: Store
    log_file: Path

    @property
    def weights(self) -> dict | None:
        return self.plan.made_from if self.plan else None

    @property
    def full_precision(self) -> ScoredModel:
        """The model in full precision."""
        return ScoredModel(self.source)

    @property
    def scored(self) -> ScoredModel:
        """The model that the run is about: quantized, or in full precision where nothing is quantized."""
        return ScoredModel(self.source, self.weights)


def run(config: Config, run_dir: Path, sweep: str | None = None) -> None:
    """Run one cell and write its directory. Raises UserError, before weights are loaded wherever that is possible."""
    settings, memo = resolved(config), Memo()
    with open_run(run_dir, settings) as current:
        made_by = provenance.collect()
        current.write_json("provenance.json", made_by)
        with current.stage("check"):
            cell = prepare(config, run_dir / "libraries.log", memo)
            wandb_run.start_service(config.tracking)
            check(cell, memo)
            made_by |= _made_by(cell, config)
            current.write_json("provenance.json", made_by)
        with current.stage("load tasks"):
            load_tasks(cell, memo)
        source, scorer = cell.source, cell.scorer
        with tracking.track_run(config, settings, run_dir, sweep, cell.log_file) as tracker:
            quantized = baseline = proof = packed = None
            if cell.plan:
                with current.stage("quantize"):
                    to_read = bool(scorer.missing(cell.scored))
                    quantized = ensure_quantized(cell.plan, cell.store, cell.log_file, to_read)
                with current.stage("compress"):
                    packed = compress.ensure_compressibility(
                        cell.plan, quantized.checkpoint, config.compress, cell.store, cell.log_file
                    )
                    proof = quantized.proof.model_copy(update=compress.headline(packed))
                    current.write_json("quantization.json", to_plain(proof))
                    if packed:
                        current.write_json("compressibility.json", to_plain(packed))
            with current.stage("score full precision"):
                rows = scorer.score(cell.full_precision, None, "full precision")
            if quantized:
                baseline = rows
                write_records(run_dir / "baseline.parquet", baseline, scorer.keys(cell.full_precision))
                with current.stage("score quantized"):
                    rows = scorer.score(cell.scored, quantized.checkpoint, config.quant.name)
            write_records(run_dir / "records.parquet", rows, scorer.keys(cell.scored))
            made_by |= _data(cell)
            current.write_json("provenance.json", made_by)
            took = _costs(cell, proof)
            current.write_json("costs.json", to_plain(took))
            with current.stage("noise control"):
                noisy = [_noise(cell, seed, run_dir / "noise_control") for seed in range(config.control.seeds)]
            with current.stage("report"):
                title = f"{source.name}, {config.quant.name}"
                scorer.write_prompts(cell.full_precision, run_dir / "prompts.parquet")
                prompts = read_prompts(run_dir / "prompts.parquet")
                origin = Provenance.model_validate(made_by)
                about = About(title, proof, origin, prompts, noisy, packed, asdict(config.task))
                made = build(run_dir, rows, baseline, config.metric, config.verdict, about)
            with current.stage("track"):
                tracker.log_facts(origin, proof, took)
                tracker.log_report(made, rows, baseline, config.metric)
                tracker.log_records(run_dir / "records.parquet")
    places = {"report": made.page, "records": run_dir / "records.parquet", "W&B": tracker.where}
    terminal_summary.show(made, about, config.metric, places)
    if made.verdict:
        _check_strict(config, made.verdict, run_dir)


def prepare(config: Config, log_file: Path, memo: Memo) -> Cell:
    """Find all that the settings name. Raises UserError. memo: knows what other cells of the sweep have in common with it."""
    store, mirror = Store(config.paths.store), config.paths.hub_mirror
    check_own_metrics(config.metric)
    quantizer = check_model(config.model, config.quant, config.control.seeds > 0)
    with terminal.output_to(log_file):
        memo(wandb_run.check_login, config.tracking)
        source = memo(locate_model, config.model, mirror, store)
        dtype = memo(computing_dtype, config.model, source.path)
    if not config.scoring.dequantize and dtype == "float32":
        raise UserError("scoring.dequantize=false: packed kernels compute in half precision. Add model.dtype=bfloat16.")
    plan = None
    if not quantizer.is_full_precision:
        with terminal.output_to(log_file):
            text = memo(locate_text, config.calib, mirror, config.task, store)
        checkpoint = prequantized.locate(quantizer, mirror, store)
        plan = Plan(source, quantizer, config.calib, text, dtype, checkpoint)
    questions = memo(locate_questions, config.task, mirror)
    return Cell(source, dtype, plan, Scorer(questions, config.scoring, dtype, store, log_file), store, log_file)


def check(cell: Cell, memo: Memo) -> None:
    """What can be known to be wrong of model, prompts and quantizer before weights are loaded. Raises UserError."""
    cell.scorer.check_prompting(cell.source)
    if cell.plan and not cell.store.find("weights", cell.plan.made_from):
        with terminal.output_to(cell.log_file):
            check_plan(cell.plan, cell.store, memo)


def load_tasks(cell: Cell, memo: Memo) -> None:
    """Load what the store has no answers to. Raises UserError for what cannot be asked."""
    cell.scorer.load_missing(cell.full_precision, memo)
    cell.scorer.load_missing(cell.scored, memo)


def _made_by(cell: Cell, config: Config) -> dict:
    source = cell.source
    model = {"name": source.name, "series": config.model.series, "training_seed": config.model.training_seed}
    model |= {"revision": source.revision, "fingerprint": source.fingerprint, "dtype": cell.dtype}
    model |= {key: getattr(source.settings, key) for key in ("repo", "full_dtype", "device_map")}
    if source.settings.repo:  # which revision a mirror that was filled by hand holds is not known
        model |= {"revision_asked": source.settings.revision, "revision_checked": source.revision is not None}
    with terminal.output_to(cell.log_file):
        model |= asdict(measure_size(source, cell.store))
    text = cell.plan.text if cell.plan else None
    calib = {"calib_text": text and text.name, "calib_data": getattr(text, "origin", None)}
    asked = {"asked": cell.scorer.questions.prompt_settings, "own_tasks": cell.scorer.questions.own_tasks}
    return {"model": model, "weights": cell.weights, **calib, **asked}


def _data(cell: Cell) -> dict:
    """Where the questions came from; of full precision too where its records, made at another time, are of other data."""
    data, full = cell.scorer.data(cell.scored), cell.scorer.data(cell.full_precision)
    if data == full:
        return {"data": data}
    differ = ", ".join(name for name in full if full[name] != data.get(name))
    log.warning("full precision was scored on other data, see provenance.json: %s", differ)
    return {"data": data, "data_full_precision": full}


def _costs(cell: Cell, proof: Quantization | None) -> Costs:
    """Return what quantizing and scoring cost when their results were made, which may have been in another run."""
    quantizing = WorkCosts(**{key: getattr(proof, key) for key in WorkCosts.model_fields}) if proof else None
    full = cell.scorer.costs(cell.full_precision)
    quantized = cell.scorer.costs(cell.scored) if cell.plan else None
    return Costs(quantizing=quantizing, scoring_full_precision=full, scoring_quantized=quantized)


def _noise(cell: Cell, seed: int, folder: Path) -> Records:
    """The records of one noise control of the cell's quantizer, also written into `folder`."""
    plan = cell.plan.noise(seed)
    model = ScoredModel(cell.source, plan.made_from)
    to_read = bool(cell.scorer.missing(model))
    made = ensure_quantized(plan, cell.store, cell.log_file, to_read)
    rows = cell.scorer.score(model, made.checkpoint, plan.quant.name)
    folder.mkdir(exist_ok=True)
    write_records(folder / f"{seed:03d}.parquet", rows, cell.scorer.keys(model))
    return rows


def _check_strict(config: Config, judged: Verdict, run_dir: Path) -> None:
    if config.verdict.strict and judged.verdict != NON_INFERIOR:
        what = f"{config.model.name} with {config.quant.name}"
        raise UserError(f"verdict=strict: {what} is {judged.verdict}; see {run_dir / 'report.html'}.")
