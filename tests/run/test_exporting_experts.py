"""Exported mixtures of experts: names that the programs that load them want, and the numbers that were scored."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, read_tensors
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.mixtures import separate_experts
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.results import Provenance, read
from bitsure.run.exporting import export_run
from tests.builders.exported_runs import run_of
from tests.builders.families import MIXTURES, build
from tests.builders.marks import library, needs_transformers_5
from tests.builders.tokenizers import byte_tokenizer

pytestmark = needs_transformers_5
TOKENS = torch.arange(3, 40)[None]


def saved(family, folder):
    build(family, **MIXTURES[family]).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    return saved("mixtral", tmp_path_factory.mktemp("mixtral"))


@pytest.fixture(scope="module")
def run(mixtral, tmp_path_factory, calib_file):
    return run_of(tmp_path_factory.mktemp("run"), mixtral, Rtn(4, 32, True), calib_file)


def scored(run, model):
    checkpoint = Store(run.parent / "store").find("weights", read(run / "provenance.json", Provenance).weights)
    full, _ = load_model(model, "float32", "cpu")
    put_into(full, checkpoint)
    return full


def test_gptq_names_each_experts_layers_and_is_read_again(run, mixtral, tmp_path):
    export_run(run, tmp_path / "out", "gptq")
    assert "model.layers.0.mlp.experts.3.down_proj.qweight" in read_tensors(tmp_path / "out")
    model = scored(run, mixtral)
    separate_experts(model)
    back = load_checkpoint(tmp_path / "out", model)
    assert all(torch.equal(back.weights[name].dequantize(), matrix(layer)) for name, layer in block_linears(model).items())


def test_transformers_computes_what_was_scored(run, mixtral, tmp_path):
    library("compressed_tensors")
    from transformers import AutoModelForCausalLM

    export_run(run, tmp_path / "out", "compressed-tensors")
    assert "model.layers.0.block_sparse_moe.experts.3.w2.weight_packed" in read_tensors(tmp_path / "out")
    model = scored(run, mixtral)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.inference_mode():
        expected, given = model(input_ids=TOKENS).logits, loaded(input_ids=TOKENS).logits
    torch.testing.assert_close(given, expected, rtol=0, atol=2e-2)  # the library rounds experts' weights to float16
    separate_experts(model)
    assert load_checkpoint(tmp_path / "out", model).weights.keys() == block_linears(model).keys()


def test_experts_without_names_of_their_own_are_for_gptqmodel_alone(calib_file, tmp_path):
    run = run_of(tmp_path, saved("gpt_oss", tmp_path), Rtn(4, 32, True), calib_file)
    with pytest.raises(UserError, match=r"one tensor for all experts in its files.* --format gptq"):
        export_run(run, tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # importing gptqmodel takes seconds
def test_gptqmodel_computes_what_was_scored(run, mixtral, tmp_path):
    library("gptqmodel")
    from transformers.models.mixtral import modeling_mixtral

    from bitsure.quantize.libraries.gptqmodel import load_packed

    own = modeling_mixtral.MixtralSparseMoeBlock
    export_run(run, tmp_path / "out", "gptq")
    packed, model = load_packed(tmp_path / "out", "float16"), scored(run, mixtral)
    assert modeling_mixtral.MixtralSparseMoeBlock is own  # The library replaces it while it loads.
    separate_experts(model)
    for name, layer in block_linears(model).items():
        weight = packed.get_submodule(name).dequantize_weight().T.float()
        torch.testing.assert_close(weight, matrix(layer), rtol=2**-10, atol=1e-6)
