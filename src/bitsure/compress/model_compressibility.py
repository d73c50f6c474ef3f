"""How far quantized weights and activations compress, and what that means for loading (Mao et al. 2024).

A number of b bits whose codes have the entropy H compresses by b/H at most; what real coders reach is measured.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitsure.base import terminal
from bitsure.base.store import Store
from bitsure.compress.load_time import load_times
from bitsure.config.schema import CompressSettings
from bitsure.models.facts import context_length
from bitsure.quantize.calibration.windows import draw_windows
from bitsure.quantize.plan import Plan
from bitsure.results import Compressibility, read, write
from bitsure.results.compressibility import Codes
from bitsure.results.result import Result

log = logging.getLogger(__name__)

KIND = "compressibility"  # of the store's entries
FORMAT = 2  # of what the store keeps; one more whenever code of ours would measure something else
LIBRARIES = ("numpy", "pyarrow", "constriction", "torch", "transformers")


class MeasuredCodes(Result):
    """What the store keeps: all but the times of loading, which follow from it and the bandwidth."""

    weights: Codes | None
    """Null where weights are kept."""
    activations: Codes | None
    """Null where they were not measured."""


def ensure_compressibility(
    plan: Plan, checkpoint: Callable[[], Path], settings: CompressSettings, store: Store, log_file: Path
) -> Compressibility | None:
    """Return how far a quantized model compresses, from the store if it was measured on a machine of this name.

    Args:
        plan: How the model was quantized.
        checkpoint: Returns where it lies, its files hashed; called if it has to be read.
        settings: How much is measured, and the bandwidth.
        store: Where the result is kept.
        log_file: Where the output of libraries goes.

    Returns:
        The result; None if neither weights nor activations have codes (a cast, noise, a GGUF file, keys and values alone),
        or if settings.codes is 0.
    """
    if not settings.codes:
        return None
    if not plan.quant.has_codes:
        log.warning("compress.measure=true measures nothing here: quant=%s has no codes to measure", plan.quant.name)
        return None

    def fill(unfinished: Path) -> None:
        write(unfinished / "compressibility.json", _measure(plan, checkpoint(), settings, log_file))

    directory = store.ensure(KIND, compressibility_key(plan, settings), fill, to_read=True)
    measured = read(directory / "compressibility.json", MeasuredCodes)
    if measured.weights is None and measured.activations is None:
        return None
    loading = load_times(measured.weights, settings.bandwidth) if measured.weights else None
    return Compressibility(weights=measured.weights, activations=measured.activations, loading=loading)


def compressibility_key(plan: Plan, settings: CompressSettings) -> dict[str, Any]:
    """Return the key of what is measured in the store: all that makes it."""
    return {
        "format": FORMAT,
        "weights": plan.made_from,
        "codes": settings.codes,
        "tokens": settings.tokens,
        "seed": settings.seed,
        "machine": platform.node(),
        "libraries": {library: version(library) for library in LIBRARIES},
    }


def _measure(plan: Plan, checkpoint: Path, settings: CompressSettings, log_file: Path) -> MeasuredCodes:
    from bitsure.compress import measure

    weights = measure.measure_weights(checkpoint, settings.codes, settings.seed)
    rounded = plan.quant.rounded_activations
    if not settings.tokens or not (weights or rounded):
        return MeasuredCodes(weights=weights, activations=None)
    from bitsure.quantize.checkpoint.apply_checkpoint import put_into

    with terminal.output_to(log_file):
        model, tokenizer = plan.source.load(plan.dtype, "cpu")
        hooks = put_into(model, checkpoint)
        _, held_out = draw_windows(plan.text, plan.calib, 0, tokenizer, context_length(plan.source.path))
    windows = held_out[: max(1, settings.tokens // held_out.shape[1]), : settings.tokens]
    activations = measure.measure_activations(model, hooks.transforms, windows, settings.codes, settings.seed)
    if activations is not None:
        number_format = (rounded or measure.UNROUNDED).description
        note = "" if rounded else " (they are not rounded in this model)"
        text = {"format": number_format + note, "tokens": windows.numel(), "text": plan.text.name}
        activations = activations.model_copy(update=text)
    return MeasuredCodes(weights=weights, activations=activations)


def headline(result: Compressibility | None) -> dict[str, Any]:
    """Return the fields of `Quantization` that repeat the result: bits a weight after coding, and the shortest load time."""
    if result is None or result.weights is None or result.loading is None:
        return {}
    return {
        "bits_per_weight_coded": result.weights.bits_per_weight_coded,
        "coded_with": result.weights.best,
        "code_entropy": result.weights.entropy["tensor"].value,
        "load_seconds": min(times.seconds for times in result.loading.by_coder.values()),
    }
