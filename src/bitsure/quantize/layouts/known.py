"""The layouts that are read, and which one a checkpoint has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.autoawq import AwqLayout
from bitsure.quantize.layouts.bitsandbytes import BitsandbytesLayout
from bitsure.quantize.layouts.compressed_tensors import CompressedTensorsLayout
from bitsure.quantize.layouts.layout import Layout
from bitsure.quantize.layouts.own import OwnLayout
from bitsure.quantize.layouts.packed_gptq import GptqLayout

SETTINGS_FILES = ("quantize_config.json", "quant_config.json")  # GPTQ and AWQ libraries write them; others use config.json
LAYOUTS: tuple[Layout, ...] = (GptqLayout(), AwqLayout(), CompressedTensorsLayout(), BitsandbytesLayout(), OwnLayout())


def read_settings(directory: Path) -> dict[str, Any]:
    """Return a checkpoint's quantization settings, with `quant_method` filled in.

    Raises:
        UserError: If the checkpoint has none.
    """
    settings: dict[str, Any] | None
    for name in SETTINGS_FILES:
        if (directory / name).is_file():
            settings = json.loads((directory / name).read_text(encoding="utf-8"))
            break
    else:
        config = directory / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8")).get("quantization_config") if config.is_file() else None
    if not settings:
        raise UserError(
            f"{directory} does not say how it is quantized: it has no {' or '.join(SETTINGS_FILES)}, and no "
            "quantization_config in its config.json."
        )
    # Older files of AutoAWQ, and those of auto-gptq, do not name their method.
    settings.setdefault("quant_method", "awq" if "w_bit" in settings else "gptq")
    return settings


def layout_of(settings: Mapping[str, Any], where: Path) -> Layout:
    """Return the layout that a checkpoint's settings name. Raises UserError if it is not one that is read."""
    for layout in LAYOUTS:
        if layout.quant_method == settings["quant_method"]:
            return layout
    published = [layout.quant_method for layout in LAYOUTS if layout.quant_method != OwnLayout.quant_method]
    raise UserError(
        f"{where}: quant_method={settings['quant_method']}; read are {', '.join(published[:-1])} and {published[-1]}."
    )
