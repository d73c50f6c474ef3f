"""The layouts that are read, and which one a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.models.quantization_settings import READABLE, SETTINGS_FILES, quantization_settings
from bitsure.quantize.layouts.autoawq import AwqLayout
from bitsure.quantize.layouts.bitsandbytes import BitsandbytesLayout
from bitsure.quantize.layouts.compressed_tensors import CompressedTensorsLayout
from bitsure.quantize.layouts.layout import ExportLayout, Layout
from bitsure.quantize.layouts.own import OwnLayout
from bitsure.quantize.layouts.packed_gptq import GptqLayout

EXPORTED: tuple[ExportLayout, ...] = (GptqLayout(), CompressedTensorsLayout())
LAYOUTS: tuple[Layout, ...] = (*EXPORTED, AwqLayout(), BitsandbytesLayout(), OwnLayout())


def read_settings(directory: Path) -> dict[str, Any]:
    """Return a checkpoint's quantization settings, with `quant_method` filled in.

    Raises:
        UserError: If the checkpoint has none.
    """
    settings = quantization_settings(directory)
    if settings is None:
        raise UserError(
            f"{directory} does not say how it is quantized: it has no {' or '.join(SETTINGS_FILES)}, and no "
            "quantization_config in its config.json."
        )
    return settings


def layout_of(settings: Mapping[str, Any], where: Path) -> Layout:
    """Return the layout that a checkpoint's settings name. Raises UserError if it is not one that is read."""
    for layout in LAYOUTS:
        if layout.quant_method == settings["quant_method"]:
            return layout
    raise UserError(
        f"{where}: quant_method={settings['quant_method']}; read are {', '.join(READABLE[:-1])} and {READABLE[-1]}."
    )
