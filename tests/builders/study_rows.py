"""A row of a sweep, built by hand."""

from __future__ import annotations

from bitsure.sweep.report.run_columns import COSTS
from bitsure.sweep.report.study_row import StudyRow


def study_row(model="m", seed=0, value=0.5, delta=-0.1, **changed) -> StudyRow:
    """A quantized model's accuracy on one task, a significant change."""
    fields = {"series": model, "parameters": 10, "model": model, "training_seed": None, "quantizer": "gptq4", "method": "gptq"}
    fields |= {
        "setting": "",
        "quantizer_label": "gptq4",
        "conditions": "",
        "mean_over": "",
        "calib_data": "c4",
        "calib_nsamples": 128,
        "calib_seqlen": 2048,
        "calib_seed": seed,
    }
    fields |= dict.fromkeys(("bits_per_weight", "bits_per_weight_coded", "size_bytes", "asked"))
    fields |= dict.fromkeys(COSTS)
    fields |= {"task": "t", "metric": "accuracy", "value": value, "standard_error": 0.01, "ci_low": value, "ci_high": value}
    fields |= {"n": 100, "baseline": 0.6, "tests": "primary", "p_adjusted": 0.0, "significant": True}
    fields |= {"delta": delta, "delta_standard_error": 0.02, "delta_ci_low": delta, "delta_ci_high": delta}
    return StudyRow(**fields | changed)
