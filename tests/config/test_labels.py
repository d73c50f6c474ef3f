"""Runs are called what the command called their model and quantizer."""

from __future__ import annotations

import pytest

from bitsure.config.labels import model_labels, quantizer_label
from bitsure.config.model import ModelSettings
from tests.builders.sweep_commands import compose


@pytest.mark.parametrize(
    ("name", "option", "overrides", "label"),
    [
        ("rtn4-asym-a8-kv4", "w4a8kv4", [], "w4a8kv4"),
        ("rtn-mxfp4-a-mxfp4", "mxfp4", ["model=opt-125m", "quant=mxfp4"], "mxfp4"),
        ("rtn3-asym", "mine", ["quant.bits=3", "task.limit=5"], "mine bits=3"),
        ("rtn4-g32", "rtn4", ["quant.group_size=32"], "rtn4-g32"),  # the name itself begins with what was asked for
        ("noise-gptq4-0", "noise", ["quant@quant.like=gptq4"], "noise-gptq4-0"),
        ("rtn4", None, [], "rtn4"),
    ],
)
def test_a_quantizer_is_called_what_was_asked_for(name, option, overrides, label):
    assert quantizer_label(name, option, overrides) == label


def test_models_of_one_name_are_told_apart_by_their_folders():
    paths = ["/runs/a/final", "/runs/b/final", "/runs/other"]
    models = [ModelSettings(path=path) for path in paths]
    assert model_labels(models) == ["a/final", "b/final", "other"]
    assert model_labels([models[0], models[0]]) == ["final", "final"]
    named = [ModelSettings(name="mine", path=path) for path in paths[:2]]
    assert model_labels(named) == ["mine (a/final)", "mine (b/final)"]
    assert model_labels([ModelSettings(repo="one/opt"), ModelSettings(repo="two/opt")]) == ["one/opt", "two/opt"]


def test_a_sweeps_cells_have_the_labels_of_its_command(tmp_path):
    paths = ",".join(str(tmp_path / name / "final") for name in ("a", "b"))
    cells, errors = compose("model=local", f"model.path={paths}", "quant=w4a8kv4,none")
    assert not errors.numbers
    labels = [(cell.labels.model, cell.labels.quantizer) for cell in cells]
    assert labels == [(model, quantizer) for model in ("a/final", "b/final") for quantizer in ("w4a8kv4", "none")]
