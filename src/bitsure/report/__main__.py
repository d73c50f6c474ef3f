"""python -m bitsure.report DIR [--baseline DIR] [--metric NAME] [--out DIR]: the report again, from records alone.

DIR is a run directory of ours, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bitsure import config as schema
from bitsure import harness_log, records, terminal
from bitsure.config import PROJECT, Metric, Verdict
from bitsure.errors import UserError
from bitsure.records import Records
from bitsure.report import About, build, tables


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bitsure.report", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--baseline", type=Path, help="the full-precision run; a run directory of ours has its own")
    parser.add_argument("--metric", default="standard", help="an option of conf/metric, such as paper_compat")
    parser.add_argument("--out", type=Path, help="where to write; DIR itself if not given")
    given = parser.parse_args(arguments)
    try:
        report(given.directory, given.baseline, given.metric, given.out or given.directory)
    except UserError as error:
        sys.exit(f"Error: {error}")


def report(directory: Path, baseline: Path | None, metric_name: str, out: Path) -> None:
    """Read records, compute everything, write it into `out` and show the table."""
    metric, margins = _settings(metric_name)
    found, prompts = _read(directory, "records.parquet")
    if baseline is not None:
        full, _ = _read(baseline, "records.parquet")
    else:
        own = directory / "baseline.parquet"
        full = records.read(own)[0] if own.is_file() else None
    out.mkdir(parents=True, exist_ok=True)
    about = About(_title(directory), _json(directory / "quantization.json"), _json(directory / "provenance.json"), prompts)
    made = build(out, found, full, metric, margins, about)
    console = terminal.console()
    console.print(tables.terminal_table(made.metrics, made.comparison, about.title, metric.confidence_level, metric.alpha))
    for task in (made.verdict or {"tasks": {}})["tasks"].values():
        console.print(task["sentence"], markup=False, soft_wrap=True)
    console.print(f"\nreport   {made.page}", markup=False, soft_wrap=True)


def _read(directory: Path, name: str) -> tuple[Records, dict[tuple[str, int], str]]:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory.")
    if (directory / name).is_file():
        return records.read(directory / name)[0], records.read_prompts(directory / "prompts.parquet")
    if any(directory.glob("samples_*.jsonl")):
        return harness_log.read(directory)
    raise UserError(f"{directory} holds neither {name} (a run of ours) nor samples_*.jsonl (of lm-evaluation-harness).")


def _settings(metric_name: str) -> tuple[Metric, Verdict]:
    """The metric and verdict settings of conf/."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    schema.register()
    options = sorted(path.stem for path in (PROJECT / "conf" / "metric").glob("*.yaml"))
    if metric_name not in options:
        raise UserError(f"--metric {metric_name}: there are {', '.join(options)}.")
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=[f"metric={metric_name}"])
    return OmegaConf.to_object(composed.metric), OmegaConf.to_object(composed.verdict)


def _title(directory: Path) -> str:
    made_by, proof = _json(directory / "provenance.json"), _json(directory / "quantization.json")
    name = (made_by or {}).get("model", {}).get("name") or directory.resolve().name
    return f"{name}, {proof['quantizer']}" if proof else name


def _json(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.is_file() else None


if __name__ == "__main__":
    main()
