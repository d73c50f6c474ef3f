"""What Hydra composed made into the typed config, or all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from omegaconf import MISSING, DictConfig, OmegaConf

from bitsure.base.errors import UserError, did_you_mean
from bitsure.config.other_quantizers import Noise
from bitsure.config.quantizers import Gptq, NoQuant
from bitsure.config.schema import Config


def check_choices(overrides: Iterable[str]) -> None:
    """Raise UserError where a group is given a list, of which Hydra would take the last option without a word."""
    groups = {one.name for one in fields(Config)}
    given = [one.partition("=") for one in overrides]
    if lists := [(name, value) for name, _, value in given if name in groups and value.startswith("[")]:
        how = "a run has one. To go over several, -m {0}=a,b; in a sweep's file {0}: a,b."
        raise UserError(*(f"{name}={value}: {how.format(name)}" for name, value in lists))


def to_dataclasses(composed: DictConfig) -> Config:
    """The typed config, its values checked. Raises UserError with the keys that are wrong and what is allowed."""
    missing = sorted(_missing(OmegaConf.to_container(composed)))
    if missing:
        raise UserError(f"No value for {', '.join(missing)}. Give one on the command line, such as {missing[0]}=…")
    _check_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
    except UserError as error:
        raise UserError(*(_wrong(composed) or error.args)) from None
    assert isinstance(config, Config)
    if config.control.seeds and isinstance(config.quant, (NoQuant, Noise)):
        raise UserError(
            f"control.seeds={config.control.seeds}: quant={config.quant.name} has no noise control of its own. Leave it out."
        )
    if config.control.seeds and not config.scoring.dequantize:
        raise UserError(
            "scoring.dequantize=false: noise has no packed kernels to be compared on. Leave it out, or control=none."
        )
    packed = isinstance(config.quant, NoQuant) or (isinstance(config.quant, Gptq) and config.quant.backend == "gptqmodel")
    if not config.scoring.dequantize and config.model.device_map is not None:
        raise UserError("scoring.dequantize=false: packed kernels run on one device. Leave out model.device_map.")
    if not config.scoring.dequantize and not packed:
        raise UserError(
            "scoring.dequantize=false: only checkpoints of quant.backend=gptqmodel run on packed kernels. "
            "Leave it out for this quantizer."
        )
    return config


def _missing(node: dict, above: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _missing(value, f"{above}{key}.")
        elif value == MISSING:
            yield f"{above}{key}"


def _wrong(composed: DictConfig) -> list[str]:
    """The first error of each group of settings."""
    found = []
    for group in (node for node in composed.values() if OmegaConf.is_dict(node)):
        try:
            OmegaConf.to_object(group)
        except UserError as error:
            found += error.args
    return found


def no_such_setting(key: str, group: DictConfig, chosen: str = "") -> str:
    """What to say of a dotted name that its group of settings does not have. chosen: the option whose settings these are."""
    above, dot, name = key.rpartition(".")
    known = [one.name for one in fields(OmegaConf.get_type(group))]
    of = f" of {chosen}" if chosen else ""
    return f"{key}: no such setting{of}.{did_you_mean(name, known)} There are {', '.join(above + dot + one for one in known)}."


def _check_keys(node: DictConfig, above: str = "") -> None:
    """Hydra itself refuses unknown keys, but for those that come with a + in front."""
    known = [one.name for one in fields(OmegaConf.get_type(node))]
    for key in node:
        if key not in known:
            raise UserError(no_such_setting(f"{above}{key}", node))
        if OmegaConf.is_dict(node[key]):
            _check_keys(node[key], f"{above}{key}.")
