"""AutoRound by its own library: what it learns is proved, and better than rounding to nearest."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries.auto_round import AutoRound
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from tests.builders.marks import library
from tests.builders.plans import plan


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_it_learns_is_on_its_grid_and_loses_less_than_rounding_to_nearest(bits, tiny_model, calib_file, tmp_path):
    library("auto_round")
    errors = []
    for quant in (AutoRound(bits, 32, 40), Rtn(bits, 32, True)):
        planned = plan(tiny_model, quant, calib_file)
        check_plan(planned, Store(tmp_path / "store"))
        proof = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log").proof
        assert proof.bits_per_weight == pytest.approx(bits + (16 + bits) / 32)
        assert len(proof.modules_quantized) == 12
        errors.append(sum(layer.output_error**2 for layer in proof.layers.values()))
    assert errors[0] < errors[1]


def test_settings_that_the_library_does_not_take_are_refused():
    for bits, group_size, iters, named in ((5, 32, 200, "bits"), (4, 48, 200, "group_size"), (4, 32, 0, "iters")):
        with pytest.raises(UserError, match=f"quant.{named}="):
            AutoRound(bits, group_size, iters)
    assert AutoRound(4, -1, 100, seed=1).name == "autoround4-row-iters100-seed1"
