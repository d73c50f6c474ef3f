"""python -m bitsure.report DIR [--baseline DIR] [--metric NAME] [--out DIR]: the report again, from records alone.

DIR is a run directory of ours, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples; or a
sweep's directory, finished or not, whose one option is --track.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.comparison import verdict
from bitsure.config import schema
from bitsure.config.paths import CONF
from bitsure.config.schema import MetricSettings, VerdictSettings
from bitsure.records.harness_log import read_harness_log
from bitsure.records.parquet import read_prompts, read_records
from bitsure.records.record import Records
from bitsure.report import compressibility_table as compressibility
from bitsure.report import published_table, tables
from bitsure.report.run_report import OF_A_BASELINE, About, build
from bitsure.sweep.report import cell_results as cells
from bitsure.sweep.report import sweep_report as sweep


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bitsure.report", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--baseline", type=Path, help="the full-precision run; a run directory of ours has its own")
    parser.add_argument("--metric", help="an option of conf/metric, such as paper_compat; if not given, the run's own settings")
    parser.add_argument("--out", type=Path, help="where to write; DIR itself if not given")
    parser.add_argument("--track", action="store_true", help="of a sweep: log its summary run to W&B, as its cells were")
    given = parser.parse_args(arguments)
    try:
        if cells.is_sweep(given.directory):
            _of_sweep(given)
        elif given.track:
            raise UserError(f"{given.directory} is no sweep's directory: --track logs a sweep's summary run.")
        else:
            report(given.directory, given.baseline, given.metric, given.out or given.directory)
    except UserError as error:
        sys.exit(f"Error: {error}")


def _of_sweep(given: argparse.Namespace) -> None:
    options = [f"--{name}" for name in ("baseline", "metric", "out") if getattr(given, name) is not None]
    if options:
        raise UserError(f"{given.directory} is a sweep's directory: {', '.join(options)} works on one of its runs.")
    modes = {cell.config["tracking"]["mode"] for cell in cells.read(given.directory) if "tracking" in cell.config}
    if given.track and modes <= {"disabled"}:
        raise UserError(f"{given.directory}: no cell of it was tracked (tracking.mode=disabled), so --track logs nothing.")
    sweep.show(sweep.finish(given.directory) if given.track else sweep.build(given.directory))


def report(directory: Path, baseline: Path | None, metric_name: str | None, out: Path) -> None:
    """Read records, compute everything, write it into `out`, all of it or nothing, and show the table."""
    metric, margins = read_settings(metric_name, directory / "config.yaml")
    found, prompts, made_from = _read(directory)
    full = None
    if baseline is not None:
        full, _, full_made_from = _read(baseline)
    elif (directory / "baseline.parquet").is_file():
        full, full_made_from = read_records(directory / "baseline.parquet")
    if full is not None:
        _check_versions(made_from, full_made_from)
    noisy = [read_records(path)[0] for path in sorted((directory / "noise_control").glob("*.parquet"))]
    proof, made_by = _json(directory / "quantization.json"), _json(directory / "provenance.json")
    packed = _json(directory / "compressibility.json")
    about = About(_title(directory), proof, made_by, prompts, noisy, packed, _task(directory))
    with _whole(out) as unfinished:
        made = build(unfinished, found, full, metric, margins, about)
    console = terminal.console()
    console.print(tables.terminal_table(made.metrics, made.comparison, about.title, metric.confidence_level, metric.alpha))
    if made.published:
        console.print()
        published_table.show(console, made.published)
    if made.verdict:
        console.print(f"\nVerdict: {made.verdict.verdict}", markup=False)
        for sentence in verdict.sentences(made.verdict):
            console.print(f"- {sentence}", markup=False, soft_wrap=True)
    if packed:
        console.print(f"\n{compressibility.sentence(packed)}", markup=False, soft_wrap=True)
    if metric.paper_compat:
        console.print("\nThe study's own numbers, paper_compat/…, are on the page and in metrics.json.", markup=False)
    console.print(f"\nreport   {out / made.page.name}", markup=False, soft_wrap=True)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder to fill; its files go to `out` when the block ends well, and what an earlier report made there and this one did
    not is removed, so that no old number stands beside new ones.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as unfinished:
        yield Path(unfinished)
        made = {path.relative_to(unfinished): path for path in Path(unfinished).rglob("*") if path.is_file()}
        for name, file in made.items():
            (out / name).parent.mkdir(exist_ok=True)
            file.rename(out / name)
        for name in OF_A_BASELINE:
            if Path(name) not in made:
                (out / name).unlink(missing_ok=True)


def _read(directory: Path) -> tuple[Records, dict[tuple[str, int], str], dict]:
    """A run's records, its prompts by task and doc_id, and what made the records."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory.")
    if (directory / "records.parquet").is_file():
        found, made_from = read_records(directory / "records.parquet")
        return found, read_prompts(directory / "prompts.parquet"), made_from
    if any(directory.glob("samples_*.jsonl")):
        return *read_harness_log(directory), {}
    raise UserError(
        f"{directory} holds neither records.parquet (a run of ours) nor samples_*.jsonl (of lm-evaluation-harness)."
    )


def _check_versions(made_from: dict, baseline_made_from: dict) -> None:
    """Raise UserError if a task's two runs were scored by different versions of the harness."""
    for task in made_from.keys() & baseline_made_from.keys():
        versions = [side[task].get("libraries", {}).get("lm_eval") for side in (baseline_made_from, made_from)]
        if versions[0] != versions[1]:
            raise UserError(f"task {task}: full precision was scored by lm_eval {versions[0]}, quantized by {versions[1]}.")


def read_settings(metric_name: str | None, own: Path) -> tuple[MetricSettings, VerdictSettings]:
    """The metric and verdict settings: of conf/, or the run's own if none is named."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    schema.register()
    options = sorted(path.stem for path in (CONF / "metric").glob("*.yaml"))
    if metric_name is not None and metric_name not in options:
        raise UserError(f"--metric {metric_name}: there are {', '.join(options)}.")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[f"metric={metric_name or 'standard'}"])
    if own.is_file():
        run = OmegaConf.load(own)
        composed.verdict = OmegaConf.merge(composed.verdict, run.get("verdict", {}))
        if metric_name is None:
            composed.metric = OmegaConf.merge(composed.metric, run.get("metric", {}))
    return OmegaConf.to_object(composed.metric), OmegaConf.to_object(composed.verdict)


def _title(directory: Path) -> str:
    made_by, proof = _json(directory / "provenance.json"), _json(directory / "quantization.json")
    name = (made_by or {}).get("model", {}).get("name") or directory.resolve().name
    return f"{name}, {proof['quantizer']}" if proof else name


def _task(directory: Path) -> dict | None:
    """The run's settings of its tasks."""
    path = directory / "config.yaml"
    return yaml.safe_load(path.read_text()).get("task") if path.is_file() else None


def _json(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.is_file() else None


if __name__ == "__main__":
    main()
