"""What a command calls its quantizer, models and other settings: the labels of runs in terminals, on pages and in W&B."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from bitsure.base.distinct_names import distinct_names
from bitsure.config.model import ModelSettings

QUANT = "quant."
IN_LABELS = ("model=", "model.path=", "model.repo=", "quant=", QUANT)  # overrides that the labels tell
WITHOUT_EFFECT = ("tracking", "paths", "hydra", "sweep", "plan")  # on results


def quantizer_label(name: str, option: str | None, overrides: Iterable[str] = ()) -> str:
    """Return what the command called a quantizer, such as `w4a8kv4`, `mxfp4` or `w4 group_size=32`.

    Args:
        name: Its full name, such as `rtn4-asym-a8-kv4`.
        option: The option of conf/quant; None where it is not known.
        overrides: The command's overrides, of which those of the quantizer's settings count.

    Returns:
        The option with the settings that were changed; the full name where it begins with the option, as `rtn4-g32` does.
    """
    if option is None or name.startswith(option):
        return name
    changed = [override.lstrip("+").removeprefix(QUANT) for override in overrides if override.lstrip("+").startswith(QUANT)]
    return " ".join([option, *changed])


def other_settings(overrides: Iterable[str], of_all: Container[str] = ()) -> list[str]:
    """Return what a command sets that may change results and no label tells, such as `task.limit=5`.

    Args:
        overrides: The command's overrides.
        of_all: Those that are the same for all cells of a sweep, which are left out.
    """
    return [
        override
        for override in overrides
        if override not in of_all and not override.lstrip("+").startswith((*IN_LABELS, *WITHOUT_EFFECT))
    ]


def method_name(quantizer: str, bits: object) -> str:
    """Return a quantizer's name without its bits, such as `gptq` of `gptq4`.

    Args:
        quantizer: Its full name.
        bits: The bits of its settings; None where it has none.
    """
    return quantizer.replace(str(bits), "", 1) if bits else quantizer


def model_labels(models: Sequence[ModelSettings]) -> list[str]:
    """Return the models' names; those of one name have as many parent folders as it takes to tell them apart."""
    of_name: dict[str, list[Path]] = defaultdict(list)
    for model in models:
        of_name[str(model.name)].append(_place(model))
    distinct = {name: dict(zip(places, distinct_names(places), strict=True)) for name, places in of_name.items()}
    return [_model_label(str(model.name), distinct[str(model.name)][_place(model)]) for model in models]


def _model_label(name: str, distinct: str) -> str:
    if "/" not in distinct:  # one place
        return name
    return distinct if distinct.endswith(f"/{name}") else f"{name} ({distinct})"


def _place(model: ModelSettings) -> Path:
    return Path("/", model.repo) if model.repo else Path(model.path or "").absolute()
