"""Scoring on a GPU gives the numbers of a CPU in float32, and of the harness's HFLM on the same GPU."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.store import Store
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.scoring.local.forward import score_plain, score_trees
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import chains, trees
from bitsure.scoring.local.trial import why_no_trees
from tests.builders.gpu import CONTEXT, POCKET, assert_near, on_device, scoring_requests
from tests.builders.plans import plan

pytestmark = pytest.mark.gpu
TYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
REQUESTS = scoring_requests()


@pytest.fixture(scope="module")
def of_cpu(device):
    return LocalEngine(on_device(torch.device("cpu"))[0], CONTEXT).score(REQUESTS)


@TYPES
def test_log_probabilities_are_float32s_on_a_cpu(device, of_cpu, dtype):
    engine = LocalEngine(on_device(device, dtype)[0], CONTEXT)
    assert next(engine.model.parameters()).device.type == engine.budget.device.type == device.type
    assert why_no_trees(engine.model, CONTEXT) is None
    assert_near(engine.score(REQUESTS), of_cpu, dtype)


@TYPES
def test_shared_prefixes_change_nothing(device, dtype):
    """The engine would go back to plain passes, so that passes are compared, and not engines."""
    model, asked = on_device(device, dtype)[0], dict(enumerate(REQUESTS))
    shared = score_trees(model, trees(asked, model.config.hidden_size, 2048), asked)
    plain = score_plain(model, chains(asked), asked)
    assert_near([shared[i] for i in asked], [plain[i] for i in asked], dtype)


@TYPES
def test_log_probabilities_are_hflms_also_of_inputs_that_lose_their_beginning(device, dtype):
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = on_device(device, dtype)
    long = [([5 + i % 900 for i in range(CONTEXT + 40 * k)], [7, 8 + k]) for k in range(3)]
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, max_length=CONTEXT)
    theirs = harness._loglikelihood_tokens([(("", ""), *request) for request in REQUESTS + long], disable_tqdm=True)
    ours = LocalEngine(model, CONTEXT).score(REQUESTS + long)
    absolute, relative = {"float32": (1e-3, 1e-5), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}[dtype]
    for scored, (logprob, greedy) in zip(ours, theirs, strict=True):
        assert scored.logprob == pytest.approx(logprob, abs=absolute, rel=relative)
        assert scored.greedy == greedy or dtype != "float32"


def test_rounded_activations_keys_and_values_are_a_cpus(device, calib_file, tmp_path):
    quant = Rtn(8, 32, True, transforms=["smooth"], activations=Activations(8), kv=KeysValues(8))
    checkpoint = ensure_quantized(plan(POCKET, quant, calib_file), Store(tmp_path / "store"), tmp_path / "log").checkpoint
    results = []
    for where in (device, torch.device("cpu")):
        model = on_device(where)[0]
        results.append(LocalEngine(model, CONTEXT, rounding=put_into(model, checkpoint)).score(REQUESTS))
    apart = torch.tensor([a.logprob - b.logprob for a, b in zip(*results, strict=True)]).abs()
    # A difference of 1e-7 can take a value over the border between two codes, which then differ by a whole step.
    assert apart.median() < 1e-2 and apart.mean() < 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_mask_of_shared_prefixes_takes_a_fused_kernel(gpu, dtype):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model, asked = on_device(gpu, dtype)[0], dict(enumerate(REQUESTS))
    rows = trees(asked, model.config.hidden_size, 2048)
    fused = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    with sdpa_kernel(fused):  # others are an error inside
        results = score_trees(model, rows, asked)
    expected = score_trees(model, rows, asked)
    assert_near([results[i] for i in asked], [expected[i] for i in asked], dtype)


def test_nothing_waits_for_the_gpu_but_a_batchs_results(gpu):
    engine = LocalEngine(on_device(gpu)[0], CONTEXT)
    engine.score(REQUESTS)  # checks and probes
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.score(REQUESTS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
