"""How far quantized weights and activations compress, and what that means for loading (Mao et al. 2024).

A number of b bits whose codes have the entropy H compresses by b/H at most; what real coders reach is measured.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.files import write_text
from bitsure.base.store import Store
from bitsure.compress import load_time as loading
from bitsure.config.schema import CompressSettings
from bitsure.models import facts as model_facts
from bitsure.models import source as models
from bitsure.quantize.calibration import windows as calib_data
from bitsure.quantize.plan import Plan

FORMAT = 2  # of what the store keeps; one more whenever code of ours would measure something else
LIBRARIES = ("numpy", "pyarrow", "constriction", "torch", "transformers")


def ensure(plan: Plan, checkpoint: Path, settings: CompressSettings, store: Store, log_file: Path) -> dict | None:
    """compressibility.json of a quantized model: `weights`, `activations` on held-out calibration text, `loading`.

    Found in the store if it was measured before on a machine of this name, as it holds times. `weights` and `loading` are None
    where weights are kept and activations alone have codes. None where neither has any (a cast, noise, keys and values alone),
    or where settings.codes is 0.
    """
    if not settings.codes or not plan.quant.has_codes:
        return None
    made_from = {
        "format": FORMAT,
        "weights": plan.made_from,
        "codes": settings.codes,
        "tokens": settings.tokens,
        "seed": settings.seed,
        "machine": platform.node(),
        "libraries": {library: version(library) for library in LIBRARIES},
    }

    def fill(unfinished: Path) -> None:
        measured = _measure(plan, checkpoint, settings, log_file)
        write_text(unfinished / "compressibility.json", json.dumps(measured, allow_nan=False))

    directory = store.ensure("compressibility", made_from, fill)
    measured = json.loads((directory / "compressibility.json").read_text())
    if measured["weights"] is None and measured["activations"] is None:
        return None
    return measured | {"loading": measured["weights"] and loading.times(measured["weights"], settings.bandwidth)}


def _measure(plan: Plan, checkpoint: Path, settings: CompressSettings, log_file: Path) -> dict:
    from bitsure.compress import measure

    found = {"weights": measure.weights(checkpoint, settings.codes, settings.seed), "activations": None}
    rounded = plan.quant.rounded_activations
    if settings.tokens and (found["weights"] or rounded):
        from bitsure.quantize.checkpoint import storage as checkpoints

        with terminal.output_to(log_file):
            model, tokenizer = models.load(plan.source.path, plan.dtype, "cpu", plan.source.settings)
            hooks = checkpoints.put_into(model, checkpoint)
            context = model_facts.context_length(plan.source.path)
            _, held_out = calib_data.draw_windows(plan.text, plan.calib, 0, tokenizer, context)
        windows = held_out[: max(1, settings.tokens // held_out.shape[1]), : settings.tokens]
        found["activations"] = measure.activations(model, hooks.transforms, windows, settings.codes, settings.seed)
        how = (rounded or measure.UNROUNDED).description + ("" if rounded else " (they are not rounded in this model)")
        found["activations"] |= {"format": how, "tokens": windows.numel(), "text": plan.text.name}
    return found


def headline(measured: dict | None) -> dict:
    """What quantization.json says of it: bits per weight after coding, with what, and the quickest way to load."""
    if measured is None or measured["weights"] is None:
        return {}
    weights, loaded = measured["weights"], measured["loading"]["by_coder"]
    return {
        "bits_per_weight_coded": weights["bits_per_weight_coded"],
        "coded_with": weights["best"],
        "code_entropy": weights["entropy"]["tensor"]["value"],
        "load_seconds": min(one["seconds"] for one in loaded.values()),
    }
