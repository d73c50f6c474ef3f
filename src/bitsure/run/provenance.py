"""Where a run's numbers come from. No secrets: nothing of the environment."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError

import torch

from bitsure.base import terminal
from bitsure.base.files import hash_file
from bitsure.base.versions import installed_version
from bitsure.config.metric import MetricSettings
from bitsure.config.paths import PROJECT
from bitsure.config.schema import Config
from bitsure.metrics.own_metrics import code_hashes
from bitsure.models.gguf_origin import read_origin
from bitsure.models.size import measure_size
from bitsure.results import Labels, Provenance
from bitsure.results.run_files import Machine, ModelOrigin
from bitsure.run.preparation import PreparedRun
from bitsure.tasks.open_questions import OPEN, open_files

log = logging.getLogger(__name__)

PACKAGES = (
    "bitsure",
    "torch",
    "transformers",
    "lm_eval",
    "gptqmodel",
    "auto_gptq",
    "datasets",
    "tokenizers",
    "hydra-core",
    "numpy",
    "wandb",
)
UNKNOWN = "unknown"  # the type that a server computes in


def full_names(config: Config) -> Labels:
    """Return the full names of model and quantizer, for a run that no command names otherwise."""
    return Labels(model=str(config.model.name), quantizer=config.quant.name)


def collect(labels: Labels) -> Provenance:
    """Return what is known before the settings are looked at: command, what it calls things, versions, commit, machine."""
    machine = Machine(
        system=platform.platform(),
        processor=platform.machine(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),  # sums in another order make GPTQ choose other codes
    )
    return Provenance(
        command=[os.path.basename(sys.argv[0]), *sys.argv[1:]],
        git_commit=_git("rev-parse", "HEAD"),
        git_changed_files=len((_git("status", "--porcelain") or "").splitlines()),
        python=platform.python_version(),
        packages={package: _version(package) for package in PACKAGES},
        machine=machine,
        labels=labels,
    )


def with_settings(origin: Provenance, prepared: PreparedRun, metric: MetricSettings) -> Provenance:
    """Return the provenance with the model, what its weights are made from, how questions are asked, and own metrics' code."""
    text = prepared.plan.text if prepared.plan else None
    questions = prepared.scorer.questions
    return origin.model_copy(
        update={
            "model": _model_origin(prepared),
            "weights": prepared.weights,
            "servers": {name: server.origin for name, server in prepared.servers.items()} or None,
            "calib_text": text and text.name,
            "calib_data": getattr(text, "origin", None),
            "asked": questions.prompt_settings | {name: getattr(questions.task, name) for name in ("samples", "p_true")},
            "own_tasks": questions.own_tasks,
            "own_task_files": {str(file.resolve()): hash_file(file) for file in questions.own_files} or None,
        }
        | ({"open_files": open_files(questions.task.open)} if set(questions.task.names) & set(OPEN) else {})
        | ({"own_metrics": code_hashes(metric)} if metric.own else {})
    )


def with_data(origin: Provenance, prepared: PreparedRun) -> Provenance:
    """Return the provenance with the questions' number and origin, apart for full precision if they differ, and the servers."""
    kept = prepared.scorer.kept
    servers = {name: kept.engine(model) for name, model in prepared.models.items()}
    known = {name: server for name, server in servers.items() if server} | (origin.servers or {})
    origin = origin.model_copy(update={"servers": known or None})
    origin = origin.model_copy(update={"questions": kept.question_counts(prepared.scored)})
    if prepared.text:
        origin = origin.model_copy(update={"text": prepared.text.origin(prepared.scored)})
    data, full = kept.data(prepared.scored), kept.data(prepared.full_precision)
    if data == full:
        return origin.model_copy(update={"data": data})
    different = ", ".join(name for name in full if full[name] != data.get(name))
    log.warning("full precision was scored on other data, see provenance.json: %s", different)
    return origin.model_copy(update={"data": data, "data_full_precision": full})


def _model_origin(prepared: PreparedRun) -> ModelOrigin:
    source, settings = prepared.source, prepared.source.settings
    origin = ModelOrigin(
        name=source.name,
        series=settings.series,
        training_seed=settings.training_seed,
        revision=source.revision,
        fingerprint=source.fingerprint,
        dtype=UNKNOWN if prepared.full_precision.server else prepared.dtype,
        repo=settings.repo,
        full_dtype=settings.full_dtype,
        device_map=settings.device_map,
    )
    if source.files:
        origin = origin.model_copy(update={"files": dict(source.files)})
    if gguf := read_origin(source.path):
        origin = origin.model_copy(update={"gguf": gguf})
    if settings.repo:  # The revision of a mirror that was filled by hand is not known.
        checked = {"revision_asked": settings.revision, "revision_checked": source.revision is not None}
        origin = origin.model_copy(update=checked)
    with terminal.output_to(prepared.log_file):
        size = asdict(measure_size(source, prepared.store))
    return origin.model_copy(update=size if prepared.full_precision.server is None else {"parameters": size["parameters"]})


def _version(package: str) -> str | None:
    try:
        return installed_version(package)
    except PackageNotFoundError:  # no environment holds both GPTQ libraries
        return None


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
