"""vLLM itself in this process, in its environment (`make test-vllm`): the local engine's numbers, and what it loads of ours."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.paths import PROJECT
from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.config.vllm_settings import VllmSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.publish import publish
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.libraries.llama_cpp import LlamaCpp
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.vllm_setup import VllmSetup
from tests.builders.awq import save_awq
from tests.builders.plans import plan
from tests.builders.requests import three_shapes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]
MODEL = PROJECT / "pocket" / "models" / "pocket-llama-1m"
CONTEXT = 640
TOLERANCE = 1e-4  # nats, in float32
VARIABLES = {  # vLLM's workers in this process, on its threads
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

GPTQ = {"group_size": 64, "symmetric": True, "backend": "gptqmodel", "desc_act": False, "damp_percent": 0.01}
UNPACKED = {"rtn3": Rtn(3, 64, False), "gptq4 of gptqmodel": Gptq(bits=4, **GPTQ), "q4_0": LlamaCpp("q4_0", imatrix=False)}
FOUR_BITS = {  # packed weights that vLLM's 4-bit kernel computes, on a CPU in its build for AVX-512 alone
    "rtn4": Rtn(4, 64, True),
    "rtn4, asymmetric": Rtn(4, 64, False),
    "rtn4, a scale a row": Rtn(4, -1, True),
    "gptq4 of gptqmodel": Gptq(bits=4, **GPTQ),
}
WITHOUT_A_KERNEL = {  # packed weights → what vLLM says of them on a CPU
    "rtn8": (Rtn(8, 64, True), "uint8b128"),
    "rtn3": (Rtn(3, 64, True), "uint3b4"),
    "gptq8 of gptqmodel": (Gptq(bits=8, **GPTQ), "uint8b128"),
    "gptq3 of gptqmodel": (Gptq(bits=3, **GPTQ), "bits=3, sym=True"),
    "gptq4 of gptqmodel, asymmetric": (Gptq(bits=4, **GPTQ | {"symmetric": False}), "bits=4, sym=False"),
}
OF_HALF = {"mean": 0.01, "largest": 0.1}  # nats from float32 of what a kernel computes in float16


@pytest.fixture(scope="module")
def source():
    return locate_model(ModelSettings(path=str(MODEL)), None)


@pytest.fixture
def engine_of(source, tmp_path, monkeypatch, stack):
    """A function that lets vLLM run the pocket Llama, or its quantized weights."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    def make(checkpoint=None, dtype="float32", dequantize=True):
        scoring = ScoringSettings(VLLM, dequantize=dequantize, vllm=VllmSettings(eager=True))
        setup = VllmSetup(scoring, dtype, tmp_path / "libraries.log")
        return setup.engine(setup.load(source, checkpoint, stack), CONTEXT)

    return make


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory, calib_file):
    """A function that quantizes the pocket Llama."""
    store = Store(tmp_path_factory.mktemp("store"))
    return lambda quant: ensure_quantized(plan(MODEL, quant, calib_file), store, store.root / "log").checkpoint


def differences(engine, checkpoint, requests) -> list[float]:
    """The largest difference from the local engine's log-probabilities in each request, nats."""
    model = load_model(MODEL, "float32")[0]
    if checkpoint:
        put_into(model, checkpoint)
    expected = LocalEngine(model, engine.max_length).score(requests)
    pairs = zip(engine.score(requests), expected, strict=True)
    return [np.abs(np.subtract(ours.token_logprobs, local.token_logprobs)).max() for ours, local in pairs]


def test_log_probabilities_are_those_of_the_local_engine(engine_of):
    engine = engine_of()
    assert engine.origin.nondeterminism < TOLERANCE and engine.origin.inconsistency < TOLERANCE
    for shape, requests in three_shapes().items():
        assert max(differences(engine, None, requests)) < TOLERANCE, shape


@pytest.mark.parametrize("name", UNPACKED)
def test_unpacked_weights_score_as_here(name, engine_of, checkpoint_of):
    checkpoint = checkpoint_of(UNPACKED[name])
    assert max(differences(engine_of(checkpoint), checkpoint, three_shapes()["several tokens"])) < TOLERANCE


def check_packed(engine_of, checkpoint) -> None:
    """The 4-bit kernel gives in float16 what the unpacked weights give in float32, or is not there."""
    if not torch.cpu._is_avx512_supported():
        with pytest.raises(UserError, match="cpu_gemm_wna16"):
            engine_of(checkpoint, "float16", dequantize=False)
        return
    apart = differences(engine_of(checkpoint, "float16", dequantize=False), checkpoint, three_shapes()["several tokens"])
    assert np.mean(apart) < OF_HALF["mean"] and max(apart) < OF_HALF["largest"]


@pytest.mark.parametrize("name", FOUR_BITS)
def test_packed_weights_of_4_bits_score_as_unpacked_ones(name, engine_of, checkpoint_of):
    check_packed(engine_of, checkpoint_of(FOUR_BITS[name]))


def test_autoawqs_checkpoints_score_as_unpacked_ones(engine_of, tmp_path):
    save_awq(MODEL, tmp_path / "awq", group_size=64)
    check_packed(engine_of, tmp_path / "awq")


def test_exports_in_gptqs_layout_score_as_unpacked_weights(engine_of, source, checkpoint_of, tmp_path):
    publish(source, checkpoint_of(FOUR_BITS["rtn4"]), tmp_path, "the export", "gptq")
    check_packed(engine_of, tmp_path)


@pytest.mark.parametrize("name", WITHOUT_A_KERNEL)
def test_packed_weights_without_a_kernel_are_refused_in_vllms_words(name, engine_of, checkpoint_of):
    quant, reason = WITHOUT_A_KERNEL[name]
    with pytest.raises(UserError, match=reason):
        engine_of(checkpoint_of(quant), "float16", dequantize=False)


def test_gguf_blocks_have_no_layout_that_vllm_reads(engine_of, checkpoint_of):
    with pytest.raises(UserError, match="which no layout has"):
        engine_of(checkpoint_of(UNPACKED["q4_0"]), dequantize=False)
