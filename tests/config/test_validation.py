"""Every error in the settings is listed before anything is loaded."""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException

from bitsure.base.errors import UserError
from tests.builders.composing import composed


def test_impossible_values_of_several_groups_are_listed_together():
    with pytest.raises(UserError) as error:
        composed("task.limit=0", "quant=rtn4", "quant.bits=9", "metric.alpha=0")
    assert [message.partition("=")[0] for message in error.value.args] == ["quant.bits", "task.limit", "metric.alpha"]


@pytest.mark.parametrize("key", ["more", "quant.more", "task.more"])
def test_keys_added_with_a_plus_are_refused(key):
    with pytest.raises(UserError, match=f"{key}: no such setting"):
        composed(f"+{key}=1")


def test_missing_values_are_named():
    with pytest.raises(UserError, match=r"model\.path"):
        composed("model=local")


@pytest.mark.parametrize(("override", "error"), [("model.paht=x", ConfigCompositionException), ("task.limit=many", UserError)])
def test_unknown_keys_and_wrong_types_are_refused(override, error):
    with pytest.raises(error):
        composed(override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "quant.bitz=3",
            r"quant\.bitz: no such setting\. Did you mean quant\.bits\? Its settings are quant\.bits, quant\.group_size,",
        ),
        ("quant=none quant.bits=4", r"quant\.bits: no such setting\. It has none"),
        ("quant.bits=many", r"quant\.bits=many: a whole number is needed"),
        ("quant=w8a8 quant.activations.bitz=4", r"activations\.bitz: no such setting\. Did you mean quant\.activations\.bits"),
        ("quant=noise quant.like.bitz=4", r"quant\.like\.bitz: no such setting\. Did you mean quant\.like\.bits"),
        ("quant=qllm-w4a4 quant.tuning.rank=many", r"quant\.tuning\.rank=many: a whole number is needed"),
        ("quant._target_=no_such_module.Mine", r"Python finds no module no_such_module\. Put its file into the --config-dir"),
        ("quant._target_=bitsure.quantize.native.rtn.Rtm", r"bitsure\.quantize\.native\.rtn has no Rtm\. Did you mean Rtn"),
        ("quant._target_=bitsure.config.model.ModelSettings", r"derives from bitsure\.quantize\.Quantizer"),
        ("quant._target_=bitsure.quantize.Quantizer", r"the class does not define name, quantize"),
        ("~quant._target_", r"quant names no class: its file needs a line such as _target_"),
    ],
)
def test_an_unknown_setting_of_a_quantizer_is_refused_with_those_that_it_has(overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides.split())


def test_combinations_that_would_mislead_are_refused():
    with pytest.raises(UserError, match="groups in another order"):
        composed("quant=gptq4", "quant.backend=native", "quant.desc_act=true", "quant.transforms=[clip]")
    with pytest.raises(UserError, match=r"answer_confidence=self_consistency: no answer has it\. Add task\.samples=10"):
        composed("metric.answer_confidence=self_consistency")
    with pytest.raises(UserError, match=r"answer_confidence=p_true: no answer has it\. Add task\.p_true=true"):
        composed("metric.answer_confidence=p_true", "task.samples=3")
    with pytest.raises(UserError, match="noise has no packed kernels"):
        composed("control=noise", "scoring.dequantize=false")
    with pytest.raises(UserError, match="has no noise control of its own"):
        composed("control=noise", "quant=none")
    with pytest.raises(UserError, match=r"model\.device=cpu: model\.device_map=auto chooses devices"):
        composed("model.device=cpu", "model.device_map=auto")
    with pytest.raises(UserError, match="'cpu' is no DEVICE:SIZE, such as cpu:60GiB"):
        composed("model.device_map=auto", "model.max_memory=[cpu]")
    with pytest.raises(UserError, match="packed kernels run on one device"):
        composed("model.device_map=auto", "scoring.dequantize=false", "model.dtype=bfloat16")
    with pytest.raises(UserError, match=r"control\.seeds=5: must be 19 or more"):
        composed("control=noise", "control.seeds=5")


@pytest.mark.parametrize(
    ("override", "own"),
    [
        ("metric.own.mine=my_metrics.f", {"mine": "my_metrics.f"}),
        ("metric.own={mine:my_metrics.f}", {"mine": "my_metrics.f"}),
        ("metric.own=[my_metrics.f,other.g]", {"f": "my_metrics.f", "g": "other.g"}),
    ],
)
def test_metrics_of_ones_own_are_named_on_the_command_line(override, own):
    assert composed(override).metric.own == own


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metric.own=[my_metrics.f,other.f]", "two functions have one name"),
        ("metric.own=3", r"give functions as \{name: module\.function\}, or as a list"),
        ("metric.own=[3]", "give functions as"),
        ("metric.owns=[my_metrics.f]", "Did you mean metric.own"),
    ],
)
def test_other_values_of_own_metrics_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        composed(override)
