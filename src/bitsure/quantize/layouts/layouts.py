"""How published checkpoints lay out quantized weights: one file for each, from tensors by name to number formats."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts import autoawq as awq
from bitsure.quantize.layouts import bitsandbytes, compressed_tensors
from bitsure.quantize.layouts import element_codes as elements
from bitsure.quantize.layouts import packed_gptq as gptq
from bitsure.quantize.weights.formats import DenseWeight, Weight

SETTINGS = ("quantize_config.json", "quant_config.json")  # of GPTQ and AWQ libraries; else config.json says


def read_settings(directory: Path) -> dict:
    """How a checkpoint says that it is quantized, with `quant_method` filled in. Raises UserError where it says nothing."""
    for name in SETTINGS:
        if (directory / name).is_file():
            settings = json.loads((directory / name).read_text())
            break
    else:
        config = directory / "config.json"
        settings = json.loads(config.read_text()).get("quantization_config") if config.is_file() else None
    if not settings:
        raise UserError(
            f"{directory} does not say how it is quantized: it has no {' or '.join(SETTINGS)}, and no quantization_config "
            f"in its config.json."
        )
    # AutoAWQ's older files and auto-gptq's do not name themselves
    settings.setdefault("quant_method", "awq" if "w_bit" in settings else "gptq")
    return settings


def take(tensors: dict[str, torch.Tensor], settings: dict, where: Path) -> dict[str, Weight]:
    """Remove the quantized weights from a checkpoint's tensors and return them by layer name.

    Raises UserError for a layout that is not read here, and for tensors that contradict the settings.
    """
    match settings["quant_method"]:
        case "gptq":
            return gptq.take(tensors, settings, where)
        case "awq":
            return awq.take(tensors, settings, where)
        case "compressed-tensors":
            return compressed_tensors.take(tensors, settings, where)
        case "bitsandbytes":
            return bitsandbytes.take(tensors)
        case "bitsure":  # our own: what the packed layout of GPTQ has no room for lies beside it
            names = [key.removesuffix(".dense") for key in tensors if key.endswith(".dense")]
            dense = {name: DenseWeight(tensors.pop(f"{name}.dense")) for name in names}
            packed = gptq.take(tensors, settings, where) | elements.take(tensors, settings)
            return dense | packed | bitsandbytes.take(tensors)
        case other:
            raise UserError(f"{where}: quant_method={other}; read are gptq, awq, compressed-tensors and bitsandbytes.")


def layer_of(key: str) -> str | None:
    """The layer that a tensor's name says is quantized; None for any other tensor."""
    for suffix in (".qweight", ".elements", ".weight_packed", ".weight_scale", ".weight.absmax", ".SCB", ".dense"):
        if key.endswith(suffix):
            return key.removesuffix(suffix)
    return None
