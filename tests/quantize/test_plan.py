from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rtn import Rtn
from tests.builders.plans import plan


@pytest.mark.parametrize(("quant", "library"), [(Bnb("nf4"), "bitsandbytes"), (Hqq(4, 64), "hqq")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(tiny_model, calib_file, monkeypatch, quant, library):
    def version(name: str) -> str:
        if name == library:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("bitsure.quantize.plan.installed_version", version)
    with pytest.raises(UserError, match=rf"quant={quant.name} needs {library}.*pip install -e '\.\[{library}\]'"):
        _ = plan(tiny_model, quant, calib_file).made_from


def test_what_the_models_forward_pass_decides_is_known_by_its_library(tiny_model, calib_file):
    """Scales, ranges and tuning come out of transformers' modules; plain rounding never runs the model."""
    static = Activations(8, 0)
    by_data = [Rtn(4, 32, True, transforms=["clip"]), Rtn(4, 32, True, activations=static), Kept(activations=static)]
    for quant in by_data:
        assert {"torch", "transformers"} <= plan(tiny_model, quant, calib_file).made_from["libraries"].keys()
    for quant in (Rtn(4, 32, True), Kept(kv=KeysValues(4))):
        assert plan(tiny_model, quant, calib_file).made_from["libraries"].keys() == {"torch"}


def test_weights_whose_calibration_scales_rounded_inputs_have_a_key_of_their_own():
    """Calibration computed them otherwise once."""
    scaled = Rtn(4, 32, True, transforms=["smooth"], activations=Activations(8))
    assert "input_scaling" in scaled.identity(None)
    for other in (Rtn(4, 32, True, activations=Activations(8)), Rtn(4, 32, True, transforms=["scale"])):
        assert "input_scaling" not in other.identity(None)


def test_experts_that_the_config_alone_names_are_no_experts(tiny_model, calib_file, tmp_path):
    dense = plan(tiny_model, Rtn(4, 32, True), calib_file)
    with pytest.raises(UserError, match=r"calib\.all_experts=true: .* has no experts"):
        check_plan(replace(dense, calib=replace(dense.calib, all_experts=True)), Store(tmp_path))


def test_memory_has_to_hold_the_copy_of_a_model_on_which_rotations_are_learned(tiny_model, calib_file, tmp_path, monkeypatch):
    def planned(steps: int):
        quant = Rtn(4, 32, True, transforms=["rotate"], rotation=RotationSettings(steps=steps))
        whole = plan(tiny_model, quant, calib_file)
        sized = replace(whole.source.settings, parameters=1000)
        return replace(whole, source=replace(whole.source, settings=sized))

    monkeypatch.setattr("bitsure.models.facts._main_memory", lambda: 6000)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_plan(planned(0), Store(tmp_path))
    with pytest.raises(UserError, match="1,000 parameters in float32 and again in float32 are"):
        check_plan(planned(1), Store(tmp_path))
