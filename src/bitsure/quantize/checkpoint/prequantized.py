"""Checkpoints that others quantized, paired with their full-precision parent; they are read where they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.other_quantizers import Noise, Prequantized
from bitsure.config.quantizers import Quant
from bitsure.config.schema import ModelSettings
from bitsure.models import source as models
from bitsure.models.source import Source

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def named(quant: Quant) -> Prequantized | None:
    """The settings of the checkpoint that a quantizer reads, a noise control for its quantizer's error; None where none is."""
    quant = quant.like if isinstance(quant, Noise) else quant
    return quant if isinstance(quant, Prequantized) else None


def locate(quant: Quant, hub_mirror: str | None, store: Store | None = None) -> Source | None:
    """The checkpoint's files; None for a quantizer that makes its own. Raises UserError as `models.locate`."""
    if (settings := named(quant)) is None:
        return None
    model = ModelSettings(path=settings.path, repo=settings.repo, revision=settings.revision)
    found = models.locate(model, hub_mirror, store, "quant")
    if models.weight_files(found.path)[0].suffix != ".safetensors":
        raise UserError(f"{found.path} holds its weights as .bin, which is not read: convert them to safetensors.")
    return found


def check(checkpoint: Source, model: nn.Module, parent: str) -> None:
    """Raise UserError if the checkpoint is not of this model (modules without weights), by its config and files' headers."""
    from bitsure.quantize.checkpoint.storage import own_names
    from bitsure.quantize.layouts import layouts
    from bitsure.quantize.walk.targets import block_linears

    layouts.take({}, layouts.read_settings(checkpoint.path), checkpoint.path)  # is its layout one that is read?
    theirs, ours = (
        {name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (models.empty_model(checkpoint.path), model)
    )
    if differ := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        name = differ[0]
        raise UserError(
            f"{checkpoint.path} is not quantized from {parent}: {len(differ)} tensors differ, such as {name}, "
            f"{theirs.get(name, 'none')} there and {ours.get(name, 'none')} here."
        )
    own, stored = own_names(model), _names(checkpoint)
    quantized = {own(f"{layer}.weight").removesuffix(".weight") for key in stored if (layer := layouts.layer_of(key))}
    if missing := sorted(set(block_linears(model)) - quantized):
        raise UserError(
            f"{checkpoint.path}: {len(missing)} layers of {parent} are not quantized in it: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}."
        )
    needed = {name for name, _ in model.named_parameters()}  # what is tied once
    if missing := sorted(
        name for name in needed - {own(key) for key in stored} if name.removesuffix(".weight") not in quantized
    ):
        raise UserError(f"{checkpoint.path} lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}.")
    if found := not_applied(checkpoint):
        log.warning("%s quantizes its %s too, which stay in full precision here", checkpoint.name, " and ".join(found))


def check_parent(checkpoint: Source, report: dict, parent: str) -> None:
    """Raise UserError if weights differ (report: quantization.json) by as much as those of another model do."""
    far = [name for name, layer in report["layers"].items() if layer["weight_error"] >= 1]
    if far:
        raise UserError(
            f"{checkpoint.path} is not quantized from {parent}, though its shapes are the same: {len(far)} layers differ by "
            f"more than their own size, such as {far[0]}."
        )


def _names(checkpoint: Source) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for path in models.weight_files(checkpoint.path):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    return names


def not_applied(checkpoint: Source) -> list[str]:
    """What the checkpoint quantizes besides weights, which stays in full precision here."""
    from bitsure.quantize.layouts import layouts

    settings = layouts.read_settings(checkpoint.path)
    found = ["keys and values"] if settings.get("kv_cache_scheme") else []
    if any(group.get("input_activations") for group in settings.get("config_groups", {}).values()):
        found.append("activations")
    if settings.get("load_in_8bit"):
        found.append("activations")
    return found
