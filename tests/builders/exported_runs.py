"""A finished run of a quantizer that was not scored: a real checkpoint, with the numbers of made-up answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import yaml

from bitsure.base.store import Store
from bitsure.comparison import compare, judge
from bitsure.metrics import measure
from bitsure.models.size import measure_size
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.quantizer import Quantizer
from bitsure.results import write
from bitsure.results.run_files import QuestionCount
from tests.builders.answers import paired_runs
from tests.builders.plans import plan
from tests.builders.result_files import model_origin, provenance
from tests.builders.settings import MARGINS, METRIC


def run_of(folder: Path, model: Path, quant: Quantizer, calib_file: Path) -> Path:
    """Quantize a model and return the directory of its run, with the files that an export reads."""
    store, made_by = Store(folder / "store"), plan(model, quant, calib_file)
    made = ensure_quantized(made_by, store, folder / "log")
    run = folder / "run"
    run.mkdir()
    full, quantized, _ = paired_runs(60)
    comparison = compare(full, quantized, METRIC)
    size = asdict(measure_size(made_by.source, store))
    origin = model_origin("tiny").model_copy(update={"fingerprint": made_by.source.fingerprint, "repo": "org/tiny", **size})
    write(run / "metrics.json", measure(quantized, METRIC))
    write(run / "comparison.json", comparison)
    write(run / "verdict.json", judge(comparison, MARGINS, METRIC))
    write(run / "quantization.json", made.proof.model_copy(update={"checkpoint": str(made.shipped)}))
    asked = {"questions": {"t": QuestionCount(asked=60, available=2376)}, "asked": {"limit": 60, "num_fewshot": 0}}
    write(run / "provenance.json", provenance(model=origin, weights=made_by.made_from, **asked))
    config = {"model": {"path": str(model), "repo": None}, "paths": {"store": str(store.root), "hub_mirror": None}}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return run
