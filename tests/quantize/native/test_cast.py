from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.models.tokenizers import load_tokenizer
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native import cast as casts
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.mixtures import separate_experts
from tests.builders.families import FAMILIES, build
from tests.builders.plans import plan

WINDOWS = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_tensor_is_rounded_and_computing_goes_on_in_float32(tiny_model, calib_file, tmp_path, dtype):
    planned = plan(tiny_model, Cast(dtype), calib_file)
    check_plan(planned, Store(tmp_path))
    made = ensure_quantized(planned, Store(tmp_path), tmp_path / "log")
    model, _ = load_model(tiny_model, "float32")
    put_into(model, made.checkpoint)
    theirs, _ = load_model(tiny_model, dtype)  # transformers' own rounding
    for (name, ours), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, other.float()), name
    assert made.proof.bits_per_weight == 16 and made.proof.parameter_share == 1
    assert made.proof.modules_skipped == {} and len(made.proof.modules_quantized) == 12
    assert {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"} <= set(
        made.proof.other_tensors_rounded
    )
    assert 0 < made.proof.relative_error < {"bfloat16": 2**-8, "float16": 2**-11}[dtype]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_cast(family, tmp_path):
    model, expected = (build(family, **FAMILIES[family]) for _ in range(2))
    for each in (model, expected):
        separate_experts(each)
    write_checkpoint(tmp_path, *casts.cast(model, Cast("bfloat16")))
    report = prove(model, CheckpointContents(*read_checkpoint(tmp_path)), WINDOWS, whole_model=True)
    put_into(model, tmp_path)
    assert report.relative_error > 0
    for (name, ours), other in zip(model.named_parameters(), expected.bfloat16().parameters(), strict=True):
        assert torch.equal(ours, other.float()), name


def test_what_the_type_holds_already_is_refused_before_weights_are_loaded(tmp_path, tiny_model, calib_file):
    half = tmp_path / "half"
    load_model(tiny_model, "float16")[0].save_pretrained(half)
    load_tokenizer(tiny_model).save_pretrained(half)
    for path, dtype, stored in ((half, "float16", "F16"), (half, "float32", "F16"), (tiny_model, "float32", "F32")):
        with pytest.raises(UserError, match=rf"quant={dtype}: the model is stored as {stored}, which {dtype} holds"):
            check_plan(plan(path, Cast(dtype), calib_file), Store(tmp_path))
    with pytest.raises(UserError, match=r"already rounded to float16, .* computed in \(model\.dtype\)"):
        check_plan(plan(tiny_model, Cast("float16"), calib_file, dtype="float16"), Store(tmp_path))


def test_a_cast_may_leave_a_layer_but_not_all(tiny_model):
    model, _ = load_model(tiny_model, "bfloat16")  # float16 holds these numbers, but for the smallest
    model.float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter.abs() < 1e-3] = 0.5
    with pytest.raises(UserError, match="12 of 12 layers are unchanged"):
        prove(model, CheckpointContents(*casts.cast(model, Cast("float16"))), WINDOWS, whole_model=True)
    model.lm_head.weight.data[0, 0] = 1 / 3
    report = prove(model, CheckpointContents(*casts.cast(model, Cast("float16"))), WINDOWS, whole_model=True)
    assert report.other_tensors_rounded == ["model.decoder.embed_tokens.weight"]


def test_numbers_beyond_the_type_are_an_error(tiny_model):
    model, _ = load_model(tiny_model, "float32")
    model.model.decoder.final_layer_norm.weight.data[0] = 1e6
    with pytest.raises(UserError, match=r"final_layer_norm\.weight: NaN or infinite"):
        prove(model, CheckpointContents(*casts.cast(model, Cast("float16"))), WINDOWS, whole_model=True)
