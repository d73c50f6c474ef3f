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
from bitsure.run.tracking import Tracker
from tests.builders.result_files import costs, provenance, quantization
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


def log_all(tracker: Tracker, report, quantized, full, run_dir) -> None:
    """Log everything that a run logs."""
    tracker.log_facts(provenance(), quantization(bits_per_weight_coded=3.5, checkpoint="/store/weights/a"), costs())
    tracker.log_report(report, quantized, full, METRIC)
    tracker.log_records(run_dir / "records.parquet")
