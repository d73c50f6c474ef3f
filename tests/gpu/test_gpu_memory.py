"""Memory of a GPU: what quantizing holds, what happens when it runs out, and when others use the GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from bitsure.base.resources import free_memory, watch_memory
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import find_blocks
from bitsure.scoring.local import forward
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.families import FAMILIES, build
from tests.builders.gpu import CONTEXT, LINES, assert_near, on_device, scoring_requests
from tests.builders.quantizing import WINDOWS

pytestmark = pytest.mark.gpu
REQUESTS = scoring_requests()
SPARE = 2**26  # bytes
BUSY = "import torch; a = torch.randn({n}, {n}, device='{device}'); print('busy', flush=True)\nwhile True: a = (a @ a).tanh()"


def test_one_block_at_a_time_is_held(device):
    width = 2048 if device.type == "cuda" else 64
    model = build("opt", **FAMILIES["opt"] | {"num_hidden_layers": 8, "hidden_size": width, "ffn_dim": 4 * width})
    size = sum(parameter.nbytes for parameter in find_blocks(model)[1][0].parameters())
    for _ in range(2):  # what libraries keep on the GPU for themselves is there after the first time
        with watch_memory(device) as memory:
            for _, block, feed in walk(model, WINDOWS):
                assert next(block.parameters()).device.type == device.type
                feed()
    LINES.append(f"walking through 8 blocks of {size / 2**20:.1f} MiB held {memory.rise / 2**20:.1f} MiB at most")
    assert device.type == "cpu" or size <= memory.rise < 2 * size


@contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """Leave so little memory that a large batch does not fit; on a CPU such a batch is an error like a GPU's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + SPARE) / total, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    real = forward.score_trees

    def small(model, batch, requests):
        if len(batch) * len(batch[0]) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(model, batch, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "score_trees", small)
        yield


def test_scoring_goes_on_with_smaller_batches_when_memory_runs_out(device):
    """The first batch is of 12 rows of 1,344 tokens, whose mask alone takes more than is left: 87 MB of 67."""
    model, _ = on_device(device)
    requests = REQUESTS if device.type == "cpu" else [(context * 12, continuation) for context, continuation in REQUESTS * 40]
    engine = LocalEngine(model, 2000)
    expected = engine.score(requests)
    engine.budget.tokens = 2**17
    with little_memory(device):
        results = engine.score(requests)
    assert engine.budget.tokens < 2**17
    assert_near(results, expected, "float32")


def test_a_gpu_whose_memory_another_holds_gets_smaller_batches(gpu):
    model, _ = on_device(gpu)
    free = LocalEngine(model, CONTEXT)
    expected, before = free.score(REQUESTS), free_memory(gpu)
    held = torch.empty(int(before * 0.9), dtype=torch.uint8, device=gpu)
    crowded = LocalEngine(model, CONTEXT)
    assert free_memory(gpu) < 0.2 * before and crowded.budget.with_logits < free.budget.with_logits
    assert_near(crowded.score(REQUESTS), expected, "float32")
    del held
    torch.cuda.empty_cache()  # other processes of other tests need it


def test_a_gpu_that_another_process_keeps_busy_gives_the_same_numbers(device):
    engine = LocalEngine(on_device(device)[0], CONTEXT)
    expected = engine.score(REQUESTS)
    program = BUSY.format(n=4096 if device.type == "cuda" else 64, device=device)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, encoding="utf-8") as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "busy\n"
            results = engine.score(REQUESTS)
        finally:
            other.kill()
    assert_near(results, expected, "float32")
