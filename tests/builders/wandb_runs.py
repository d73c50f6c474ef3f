"""Log a run to W&B."""

from __future__ import annotations

from bitsure.config.schema import (
    CalibSettings,
    Config,
    ControlSettings,
    ModelSettings,
    PathSettings,
    ScoringSettings,
    TaskSettings,
    TrackingSettings,
)
from bitsure.quantize.native.rtn import Rtn
from bitsure.report.report_contents import About
from bitsure.results import write
from bitsure.run.tracking import TrackedRun, Tracker
from tests.builders.result_files import costs, model_origin, provenance, quantization
from tests.builders.settings import MARGINS, METRIC


def tracked_config(mode="offline") -> Config:
    """Return the settings of a run that is logged."""
    return Config(
        model=ModelSettings(path="somewhere/m"),
        quant=Rtn(4, 128, True),
        control=ControlSettings(seeds=0),
        calib=CalibSettings(name="text", path="a.txt", nsamples=1, seqlen=8),
        task=TaskSettings(name="own", names=["t"]),
        scoring=ScoringSettings(),
        metric=METRIC,
        verdict=MARGINS,
        tracking=TrackingSettings(mode=mode),
        paths=PathSettings(store="store"),
    )


def log_all(tracker: Tracker, report, quantized, full, run_dir, metric=METRIC) -> None:
    """Log everything that a run logs; its records are written where there are none."""
    proof = quantization(bits_per_weight_coded=3.5, checkpoint="/store/weights/a")
    origin = provenance(model=model_origin().model_copy(update={"parameters": 1_000_000, "bytes_on_disk": 4_000_000}))
    work = costs()
    work = work.model_copy(update={"scoring_full_precision": work.scoring_quantized})
    write(run_dir / "quantization.json", proof)
    if not (run_dir / "records.parquet").exists():
        (run_dir / "records.parquet").write_bytes(b"stands in for records")
    about = About("title", proof, origin, prompts={("t", 0): "the prompt"})
    tracker.log(TrackedRun(report, about, work, quantized, full, metric))
