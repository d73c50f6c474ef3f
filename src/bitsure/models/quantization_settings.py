"""What the files of a quantized checkpoint say about how it is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.json_files import read_object
from bitsure.config.model import ModelSettings
from bitsure.results import check

# The files in which GPTQ's, AWQ's and NVIDIA's libraries write it; the others use config.json.
SETTINGS_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
CONFIG_KEYS = ("quantization", "quantization_config", "compression_config")  # the first is that of MLX
READABLE = ("gptq", "awq", "compressed-tensors", "bitsandbytes")  # the methods that quant=prequantized reads


def quantization_settings(directory: Path) -> dict[str, Any] | None:
    """Return a checkpoint's quantization settings with `quant_method` filled in; None if it is not quantized.

    Raises:
        UserError: If config.json has settings that are empty.
    """
    for name in SETTINGS_FILES:
        if (directory / name).is_file():
            return _with_method(read_object(directory / name))
    config = directory / "config.json"
    content = read_object(config) if config.is_file() else {}
    text = check(content.get("text_config") or {}, dict[str, Any], f"{config}: text_config")
    for part in (content, text):  # Models of text and images keep it with the text's settings.
        for key in CONFIG_KEYS:
            if part.get(key) == {}:
                raise UserError(
                    f"{config}: {key} is empty, which does not say how the weights are quantized. Remove it if they are in "
                    "full precision; otherwise bring the settings."
                )
            if part.get(key):
                settings = check(part[key], dict[str, Any], f"{config}: {key}")
                return _with_method(settings, "mlx" if key == "quantization" else "gptq")
    return None


def refuse_quantized(model: ModelSettings, directory: Path) -> None:
    """Raise UserError if a model directory, whose weights may not be there yet, is a quantized checkpoint."""
    settings = quantization_settings(directory)
    if settings is None:
        return
    method, where = settings["quant_method"], f"repo={model.repo}" if model.repo else f"path={model.path}"
    way = (
        f"give PARENT as the model and add quant=prequantized quant.{where}"
        if method in READABLE
        else f"write its weights out in full precision with the library that made it, and give that directory "
        f"(quant=prequantized reads {', '.join(READABLE[:-1])} and {READABLE[-1]})"
    )
    raise UserError(
        f"model.{where} is quantized already (quant_method={method}), but a full-precision model is needed. With PARENT the "
        f"model that it was made from, there are two ways to go on. To measure this checkpoint: {way}. To quantize with "
        f"bitsure: model=local model.path=PARENT quant=rtn4."
    )


def _with_method(settings: Mapping[str, Any], usual: str = "gptq") -> dict[str, Any]:
    """Return the settings with the method that they name, or whose own keys they have; otherwise the usual one."""
    marks = {
        "bitsandbytes": ("load_in_4bit", "load_in_8bit"),
        "awq": ("w_bit",),  # older files of AutoAWQ
        "compressed-tensors": ("config_groups",),
        "modelopt": ("quant_algo", "producer"),
    }
    by_mark = next((method for method, keys in marks.items() if any(settings.get(key) for key in keys)), usual)
    return {"quant_method": by_mark, **settings}
