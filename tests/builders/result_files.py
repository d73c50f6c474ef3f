"""Result files of a small run, built by hand."""

from __future__ import annotations

from bitsure.results import Costs, Provenance, Quantization
from bitsure.results.costs import ScoringCosts, TaskCosts, WorkCosts
from bitsure.results.quantization import CalibrationText, LayerError
from bitsure.results.run_files import Machine, ModelOrigin


def quantization(**changes) -> Quantization:
    """One layer of a 4-bit model."""
    fields = {
        "modules_quantized": ["layer"],
        "modules_skipped": {},
        "parameter_share": 0.9,
        "bits_per_weight": 4.2,
        "relative_error": 0.1,
        "group_sizes": {"128": 1},
        "other_tensors_rounded": [],
        "layers": {"layer": LayerError(weight_error=0.1, output_error=0.05)},
        "quantizer": "rtn4",
        "calib_data": CalibrationText(name="text", windows=1, seqlen=8),
    }
    return Quantization(**(fields | changes))


def provenance(**changes) -> Provenance:
    """Where a run comes from."""
    fields = {
        "command": ["main.py"],
        "git_commit": "abc",
        "git_changed_files": 0,
        "python": "3.11",
        "packages": {},
        "machine": Machine(system="Linux", processor="x86_64", cores=2, threads=None),
    }
    return Provenance(**(fields | changes))


def model_origin(name: str = "m") -> ModelOrigin:
    """A model in a directory of its own."""
    unknown = dict.fromkeys(("series", "training_seed", "revision", "repo", "full_dtype", "device_map"))
    return ModelOrigin(name=name, fingerprint="f", dtype="float32", **unknown)


def costs() -> Costs:
    """A run whose full precision was scored in parts, so that its costs are unknown."""
    task = TaskCosts(tokens=5, seconds=1.0, peak_memory_bytes=None, peak_gpu_memory_bytes=None, tokens_per_second=5.0)
    return Costs(
        quantizing=WorkCosts(seconds=2.5, peak_memory_bytes=10**9, peak_gpu_memory_bytes=None),
        scoring_full_precision=None,
        scoring_quantized=ScoringCosts(
            seconds=1.0,
            tokens=900,
            peak_memory_bytes=10**9,
            peak_gpu_memory_bytes=None,
            tokens_per_second=900.0,
            by_task={"t": task},
        ),
    )
