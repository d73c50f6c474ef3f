"""Turn what Hydra composed into the typed config, or list everything that is wrong with it."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitsure.base.dotted_names import import_named
from bitsure.base.errors import UserError, did_you_mean
from bitsure.config.metric import P_TRUE, SELF_CONSISTENCY
from bitsure.config.quantizers import QuantizerSettings
from bitsure.config.schema import SERVED, VLLM, AttributionSettings, Config
from bitsure.config.vllm_settings import VllmSettings

TARGET = "_target_"  # the key of a quantizer's class in its file


def check_choices(overrides: Iterable[str]) -> None:
    """Raise UserError if a group is given a list, of which Hydra would silently take the last option."""
    groups = {group.name for group in fields(Config)}
    given = [override.partition("=") for override in overrides]
    if lists := [(name, value) for name, _, value in given if name in groups and value.startswith("[")]:
        raise UserError(*(_no_list(name, value) for name, value in lists))


def _no_list(group: str, given: str) -> str:
    """Return the error message for a list of options, such as `task=[piqa,boolq]`."""
    options = given.strip("[]").replace(" ", "")
    several = f"For a run of each, use -m {group}={options}; in a sweep's file {group}: {options}."
    if group == "task":
        return f"{group}={given}: one run asks several tasks of lm-evaluation-harness with 'task.names=[{options}]'. {several}"
    return f"{group}={given}: a run has one. {several}"


def to_dataclasses(composed: DictConfig, choices: Mapping[str, str] | None = None) -> Config:
    """Return the typed config, its values checked.

    Args:
        composed: What Hydra composed from conf/ and the command line.
        choices: Group → option that was chosen, for messages.

    Raises:
        UserError: With the keys that are wrong, and what is allowed.
    """
    composed = copy(composed)
    _resolve(composed)  # Once: every later look at a value would resolve it again.
    missing = OmegaConf.missing_keys(composed)
    chosen = f"quant={choices['quant']}" if choices and "quant" in choices else ""
    composed.quant = _typed(composed.quant, "quant", chosen)
    missing |= {key if key.startswith("quant.") else f"quant.{key}" for key in OmegaConf.missing_keys(composed.quant)}
    if missing:
        raise UserError(f"No value for {', '.join(sorted(missing))}. Give one on the command line, such as {min(missing)}=…")
    check_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
    except UserError as error:
        raise UserError(*(_first_errors(composed) or error.args)) from None
    assert isinstance(config, Config)
    check_together(config)
    return config


def _resolve(composed: DictConfig) -> None:
    """Replace each `${…}` by what it stands for. Raises UserError with the first setting for which there is nothing."""
    try:
        OmegaConf.resolve(composed)
    except OmegaConfBaseException as error:
        plain: Any = OmegaConf.to_container(composed)
        settings = {
            f"{group}.{key}": value for group in plain if isinstance(plain[group], dict) for key, value in plain[group].items()
        }
        given = next((f"{key}={value}" for key, value in (settings | plain).items() if "${" in str(value)), "the settings")
        raise UserError(f"{given}: {str(error).splitlines()[0].rstrip('.')}. Give what this run has.") from None


def check_together(config: Config) -> None:
    """Raise UserError for groups of settings that rule each other out."""
    if not config.task.names and not config.text.is_scored:
        raise UserError("task=none text=none: there is nothing to score. Name a task, or a text such as text=wikitext2.")
    if not config.task.names and config.text.is_of_tasks:
        raise UserError(f"task=none text={config.text.name}: there is no task to score. Name one, or another text.")
    if not config.task.names and config.calib.kind == "task" and not config.quant.is_full_precision:
        raise UserError(
            f"task=none calib={config.calib.name}: no task's training split is there to calibrate on. Take calib=c4."
        )
    _check_answer_confidence(config)
    if config.control.seeds and not config.quant.has_noise_control:
        raise UserError(
            f"control.seeds={config.control.seeds}: quant={config.quant.name} has no noise control of its own. Leave it out."
        )
    _check_attribution(config)
    _check_engine(config)
    if config.scoring.dequantize:
        return
    if config.control.seeds:
        raise UserError(
            "scoring.dequantize=false: noise has no packed kernels to be compared on. Leave it out, or control=none."
        )
    if config.model.device_map is not None:
        raise UserError("scoring.dequantize=false: packed kernels run on one device. Leave out model.device_map.")
    if not config.quant.has_packed_kernels and config.scoring.engine != VLLM:
        raise UserError(
            "scoring.dequantize=false: only checkpoints of quant.backend=gptqmodel run on packed kernels. "
            "Leave it out for this quantizer."
        )


def _check_engine(config: Config) -> None:
    """Raise UserError for an engine that runs no model of this run, or does not do what is asked for."""
    engine, quant = config.scoring.engine, config.quant
    here = {"model.url": config.model.server is None, "quant.url": not (quant.is_full_precision or quant.server)}
    if engine == SERVED and (missing := [key for key, is_here in here.items() if is_here]):
        raise UserError(
            f"scoring.engine=served: {missing[0]} is missing, so that no server runs that model. Add it as docs/served.md says "
            f"(model=served, quant=served), or leave out scoring.engine."
        )
    if engine != VLLM:
        if config.scoring.vllm != VllmSettings():
            raise UserError("scoring.vllm has no effect without scoring.engine=vllm. Add it, or leave these settings out.")
        return
    if not any(here.values()):
        raise UserError("scoring.engine=vllm: servers run all models of this run. Leave it out.")
    given = {
        f"quant={quant.name} with {quant.run_time_setting}": quant.run_time_setting is not None,
        f"text={config.text.name}": config.text.is_scored,
        "attribution.measure=true": config.attribution.measure,
        f"control.seeds={config.control.seeds}": config.control.seeds > 0,
        "scoring.share=false": not config.scoring.share,
        f"model.device={config.model.device}": config.model.device != "auto",
        f"model.device_map={config.model.device_map}": config.model.device_map is not None,
    }
    if local := [setting for setting, is_given in given.items() if is_given]:
        raise UserError(f"{local[0]}: bitsure's own engine does that, and not vLLM. Leave it out, or scoring.engine=vllm.")
    if not (config.scoring.dequantize or quant.has_packed_kernels or quant.has_integer_weights or quant.server):
        raise UserError(
            f"scoring.dequantize=false: vLLM is given integers with a scale a group or row, and quant={quant.name} has none. "
            "Leave it out for this quantizer."
        )


def _check_attribution(config: Config) -> None:
    """Raise UserError for settings of attribution that have no effect, or cannot be met."""
    if config.attribution.measure and config.model.device_map is not None:
        raise UserError("model.device_map: attribution.measure exchanges layers of two models in memory. Leave one out.")
    if not config.attribution.measure and config.attribution != AttributionSettings():
        raise UserError(
            "attribution.scorings, attribution.tokens and attribution.questions have no effect: nothing is attributed. Add "
            "attribution.measure=true, or leave them out."
        )


def _check_answer_confidence(config: Config) -> None:
    """Raise UserError if the confidence of written answers would come from what is not asked."""
    needs = {SELF_CONSISTENCY: (config.task.samples > 0, "task.samples=10"), P_TRUE: (config.task.p_true, "task.p_true=true")}
    is_asked, setting = needs.get(config.metric.answer_confidence, (True, ""))
    if not is_asked:
        raise UserError(f"metric.answer_confidence={config.metric.answer_confidence}: no answer has it. Add {setting}.")


def _typed(node: DictConfig, key: str, chosen: str) -> DictConfig:
    """Return a quantizer's settings typed as the class that they name, with the class's defaults.

    Args:
        node: The settings as they were composed.
        key: Their dotted name, for messages.
        chosen: The option whose settings these are, such as `quant=rtn3`, for messages.
    """
    if TARGET not in node:
        what = chosen or key
        raise UserError(f"{what} names no class: its file needs a line such as {TARGET}: my_quantizer.Mine.")
    kind = import_named(node[TARGET], f"{key}.{TARGET}")
    if not (inspect.isclass(kind) and issubclass(kind, QuantizerSettings) and is_dataclass(kind)):
        raise UserError(f"{key}.{TARGET}={node[TARGET]}: a dataclass is needed that derives from bitsure.quantize.Quantizer.")
    if "__dataclass_fields__" not in vars(kind):
        raise UserError(f"{key}.{TARGET}={node[TARGET]}: @dataclass is missing above the class; its fields are the settings.")
    if inspect.isabstract(kind):
        lacking = [name for name, value in inspect.getmembers(kind) if getattr(value, "__isabstractmethod__", False)]
        raise UserError(
            f"{key}.{TARGET}={node[TARGET]}: the class does not define {', '.join(lacking)}, which every quantizer needs."
        )
    typed = _structured(kind)
    known = {field.name for field in fields(kind)}
    given = {str(name): node._get_node(name) for name in node if name != TARGET}
    errors = [no_such_setting(f"{key}.{name}", typed, chosen) for name in given if name not in known]
    values = {name: value for name, value in given.items() if name in known}
    for name, value in values.items():
        if isinstance(value, DictConfig) and TARGET in value:
            values[name] = _typed(value, f"{key}.{name}", "")
    try:
        merged = OmegaConf.merge(typed, values)
    except OmegaConfBaseException as error:
        raise UserError(*errors, _why_not(error, key, values, chosen)) from None
    if errors:
        raise UserError(*errors)
    assert isinstance(merged, DictConfig)
    return merged


@functools.cache
def _structured(kind: type[Any]) -> DictConfig:
    """Return a settings class's schema; it is not to be changed."""
    structured: DictConfig = OmegaConf.structured(kind)
    return structured


def _why_not(error: OmegaConfBaseException, key: str, values: dict[str, Any], chosen: str) -> str:
    """Return what is wrong with a value that the settings' class does not accept, or with a key inside it."""
    inner = str(error.full_key or "").partition(".")
    kind = error.object_type
    if is_dataclass(kind) and isinstance(kind, type) and inner[2]:
        name = inner[2].partition(".")[0]
        if name not in {field.name for field in fields(kind)}:
            return no_such_setting(f"{key}.{inner[0]}.{name}", _structured(kind), chosen)
    value = OmegaConf.select(OmegaConf.create({key: values}), f"{key}.{error.full_key}")
    return f"{key}.{error.full_key}={value}: {kind_needed(str(error.msg or error))}."


def kind_needed(reason: str) -> str:
    """Return the kind of value that is needed, where OmegaConf refuses another; otherwise the first line of its reason."""
    if "is not a subclass of" in reason:
        return "this is a group of settings, which are given one by one"
    refused = re.match(r"Value .* could not be converted to (\w+)", reason)
    kinds = {"Integer": "a whole number", "Float": "a number"}
    return f"{kinds[refused[1]]} is needed" if refused and refused[1] in kinds else reason.splitlines()[0].rstrip(".")


def _first_errors(composed: DictConfig) -> list[str]:
    """Return the first error of each group of settings."""
    errors: list[str] = []
    for group in (node for node in composed.values() if OmegaConf.is_dict(node)):
        try:
            OmegaConf.to_object(group)
        except UserError as error:
            errors += error.args
    return errors


def no_such_setting(key: str, group: DictConfig, chosen: str = "") -> str:
    """Return the error message for a dotted name that its group of settings does not have.

    Args:
        key: The dotted name.
        group: The group's settings.
        chosen: The option whose settings these are, such as `quant=rtn3`.
    """
    above, dot, name = key.rpartition(".")
    kind = OmegaConf.get_type(group)
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else [str(key) for key in group]
    whose = "Its" if above else "The"
    listed = f"{whose} settings are {', '.join(above + dot + setting for setting in known)}" if known else "It has none"
    where = f" of {chosen}" if chosen else ""
    return f"{key}: no such setting{where}.{did_you_mean(name, known, above + dot) or _elsewhere(name, group)} {listed}."


def _elsewhere(name: str, group: DictConfig) -> str:
    """Return " Did you mean …?" with settings of other groups of the same name, or of the closest; empty if none is close."""
    root = cast(DictConfig, group._get_root())
    groups = {str(other): root[other] for other in root if other != "hydra" and not OmegaConf.is_missing(root, other)}
    dotted = [f"{other}.{key!s}" for other, settings in groups.items() if isinstance(settings, DictConfig) for key in settings]
    names = {key.partition(".")[2] for key in dotted}
    closest = [name] if name in names else difflib.get_close_matches(name, names, n=1)
    meant = [key for key in dotted if key.partition(".")[2] in closest]
    return f" Did you mean {' or '.join(meant)}?" if meant else ""


def check_keys(node: DictConfig, above: str = "") -> None:
    """Raise UserError for a key that its group of settings does not have.

    Args:
        node: Composed settings.
        above: The dotted name of the group with a dot behind it, for messages.
    """
    kind = OmegaConf.get_type(node)
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else set(node)
    for key in map(str, node):
        if key not in known:
            raise UserError(no_such_setting(f"{above}{key}", node))
        if is_dataclass(OmegaConf.get_type(node[key])):  # A plain dict, such as metric.own, may have any keys.
            check_keys(node[key], f"{above}{key}.")
