"""--help explains every setting in a line and groups the options of large groups."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from bitsure.config import schema
from bitsure.config.help_text import options_help, settings, settings_help
from bitsure.config.option_groups import families, preset_of
from bitsure.config.paths import CONF

schema.register()


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["model=opt-125m", "task.limit=0.1"], return_hydra_config=True)


def test_every_setting_is_explained():
    assert [setting.key for setting in settings() if len(setting.comment) < 8] == []
    keys = {setting.key for setting in settings()}
    assert {"quant.bits", "quant.kv.bits", "quant.tuning.rank", "task.limit", "metric.own", "plan"} <= keys


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_line_has_the_value_of_this_command_and_breaks_no_word(composed, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = settings_help(composed)
    assert "\ntask.limit=0.1  the first questions of each task only" in text and "\nmodel.context=2048  tokens" in text
    words = {word for setting in settings() for word in setting.comment.replace("None", "null").split()}
    assert words <= set(text.split()) | {"$"}
    assert all(len(line) < columns or " " not in line.strip() for line in text.splitlines())


def test_models_stand_with_their_family_and_quantizers_with_their_method(composed):
    text = options_help(composed)
    assert "\n  opt:  opt-1.3b opt-125m" in text and "\n  mx:  mx mxfp4" in text and "\ncontrol:  noise, none" in text


def test_options_are_described_by_their_files():
    kinds = {kind.name: kind for kind in families("quant")}
    assert "activation-aware" in kinds["awq"].comment and {option.name for option in kinds["awq"].options} >= {"awq", "awq2"}
    assert all(kind.comment for kind in kinds.values())
    assert preset_of("facebook/OPT-125m") == "opt-125m" and preset_of("org/own") is None
