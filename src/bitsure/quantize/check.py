"""Refuse combinations of a quantizer and a model before weights are loaded."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.model import ModelSettings
from bitsure.config.quantizers import QuantizerSettings
from bitsure.models.facts import check_memory, context_length
from bitsure.models.tokenizers import check_tokenizer, load_tokenizer
from bitsure.quantize.calibration.calibration_text import CalibText
from bitsure.quantize.calibration.windows import draw_windows
from bitsure.quantize.modules import empty_modules
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import QuantizationTarget, Quantizer, as_quantizer
from bitsure.quantize.refusals import not_quantizable

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def check_model(model: ModelSettings, settings: QuantizerSettings, noise_control: bool) -> Quantizer:
    """Return the quantizer of a config, checked against the model's settings before the model is looked for.

    Args:
        model: The settings of the model.
        settings: The quantizer.
        noise_control: Whether noise is scored beside the quantized model.

    Raises:
        UserError: If they rule each other out.
    """
    quantizer = as_quantizer(settings)
    if noise_control and model.device_map is not None:
        raise UserError("model.device_map: noise is added to weights in memory, not to those it leaves on disk. Leave one out.")
    quantizer.check_model_settings(model)
    if model.unquantizable is not None and not quantizer.is_full_precision:
        raise not_quantizable(f"quant={quantizer.name}: {model.name} cannot be quantized here: {model.unquantizable}.")
    return quantizer


def check_plan(plan: Plan, store: Store, memo: Memo | None = None) -> None:
    """Check everything that can be known before weights are loaded.

    Args:
        plan: What is to be quantized.
        store: Where the result goes.
        memo: What was read for other cells of a sweep.

    Raises:
        UserError: If the quantizer cannot do the model's layers, the text is too short, or a disk or memory too small.
    """
    from bitsure.quantize.checkpoint import disk_space
    from bitsure.quantize.libraries import prequantized

    source, remote_code = plan.source, plan.source.settings.trust_remote_code
    memo = memo or Memo()
    modules = memo(empty_modules, source.path, remote_code)
    if plan.checkpoint:
        prequantized.check(plan.checkpoint, modules, source)
    target = QuantizationTarget(source, plan.dtype, modules)
    if plan.calib.all_experts and not target.has_experts:
        raise UserError(
            f"calib.all_experts=true: {source.name} has no experts, so that every token reaches every layer. Leave it out."
        )
    _check_weights(plan.quant, target)
    plan.quant.check(target)
    if plan.matched and not store.find("weights", plan.matched.made_from):
        check_plan(plan.matched, store, memo)
    disk_space.check(plan.quant.bytes_needed(modules, plan.dtype), plan.quant.name, store.root)
    if plan.places(modules) is None:
        _check_memory(plan)
    # how much text there is does not depend on the order in which it is drawn
    _, held_out = memo(windows_of, source.path, remote_code, plan.text, replace(plan.calib, seed=0), plan.nsamples)
    if plan.nsamples and held_out.shape[1] < plan.calib.seqlen:
        log.warning("calib.seqlen=%d is longer than the model's context: %d tokens it is", plan.calib.seqlen, held_out.shape[1])


def _check_memory(plan: Plan) -> None:
    """Raise UserError if memory does not hold the model, and what of it runs whole while it is quantized."""
    import torch

    settings, copies = plan.source.settings, ["float32"] if plan.quant.copies_model else []
    on_gpu = torch.cuda.is_available()
    check_memory(settings, plan.dtype, "cpu", [] if on_gpu else copies)
    if on_gpu and (copies or plan.quant.moves_model):
        check_memory(settings, copies[0] if copies else plan.dtype, "cuda")


def windows_of(
    model: Path, remote_code: bool, text: CalibText, calib: CalibSettings, nsamples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return calibration windows and held-out windows, (number, seqlen) token ids each.

    Args:
        model: The model's directory, whose tokenizer is checked.
        remote_code: Whether the model's own code may run.
        text: The calibration text.
        calib: Its settings.
        nsamples: The number of calibration windows.
    """
    tokenizer = load_tokenizer(model, remote_code)
    check_tokenizer(tokenizer, model)
    return draw_windows(text, calib, nsamples, tokenizer, context_length(model))


def _check_weights(quantizer: Quantizer, target: QuantizationTarget) -> None:
    from bitsure.quantize.walk.targets import unknown_weights

    if quantizer.quantizes_whole_model:
        return
    if unknown := unknown_weights(target.modules):
        raise not_quantizable(
            f"quant={quantizer.name}: {target.source.name} has {len(unknown)} weights in its blocks that are no linear "
            f"layers and would stay as they are: {', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}."
        )
