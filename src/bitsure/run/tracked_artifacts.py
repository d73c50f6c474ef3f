"""A run's files as W&B keeps them: checkpoint → records → report, each a versioned artifact that names what it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.records.directory_kinds import RECORDS
from bitsure.records.saved_run import generations_beside, texts_beside
from bitsure.report.charts import file_name
from bitsure.results import Quantization
from bitsure.run.wandb_run import WandbRun

if TYPE_CHECKING:
    import wandb

RESULTS = ("report.html", "metrics.json", "baseline_metrics.json", "comparison.json", "verdict.json", "costs.json")
MORE_RESULTS = ("quantization.json", "compressibility.json", "provenance.json", "config.yaml", "published.json")


def artifact_name(*parts: str) -> str:
    """Return a name that W&B takes for an artifact: letters, digits, dashes, dots and underscores."""
    return file_name("-".join(parts))


def log_artifacts(run: WandbRun, run_dir: Path, quantization: Quantization | None) -> None:
    """Log the run's records and its report, and name the checkpoint that was scored as what they are made from.

    The checkpoint is a reference: its place and `quantization.json`, without the weights. An online run uses it; an offline run
    cannot use artifacts, and logs it.

    Args:
        run: The W&B run.
        run_dir: The run's directory, with all its files.
        quantization: The proof of what was quantized; None in full precision.
    """
    import wandb

    checkpoint = _checkpoint(run_dir, quantization)
    made_from = {"checkpoint": checkpoint.name if checkpoint else None}
    records = wandb.Artifact(artifact_name("records", run.id), type="records", metadata=made_from)
    own = run_dir / RECORDS
    for file in (own, texts_beside(own), generations_beside(own)):
        if file.is_file():
            records.add_file(str(file))
    run.log_artifact(records)
    report = wandb.Artifact(artifact_name("report", run.id), type="report", metadata={"records": records.name})
    for name in (*RESULTS, *MORE_RESULTS):
        if (run_dir / name).is_file():
            report.add_file(str(run_dir / name))
    run.log_artifact(report)
    if checkpoint:  # last, since online it waits for the server
        (run.log_artifact if run.offline else run.use_artifact)(checkpoint)


def _checkpoint(run_dir: Path, quantization: Quantization | None) -> wandb.Artifact | None:
    """Return the quantized checkpoint as an artifact of `quantization.json`; None in full precision."""
    import wandb

    if quantization is None or quantization.checkpoint is None:
        return None
    place = Path(quantization.checkpoint)
    folder = place.parent if place.is_file() else place  # a GGUF file's
    artifact = wandb.Artifact(artifact_name("checkpoint", folder.name), type="checkpoint", metadata={"path": str(place)})
    artifact.add_file(str(run_dir / "quantization.json"))
    return artifact
