from __future__ import annotations

import pytest

from bitsure.base.store import Store
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from tests.builders.marks import GPTQ_LIBRARY
from tests.builders.plans import plan


@pytest.fixture(scope="session")
def gptq_checkpoint(tiny_model, calib_file, tmp_path_factory):
    """The library's own files and what we say of them when we make them ourselves."""
    gptq = Gptq(bits=4, group_size=32, symmetric=True, backend=GPTQ_LIBRARY, desc_act=False, damp_percent=0.01)
    folder = tmp_path_factory.mktemp("gptq")
    made = ensure_quantized(plan(tiny_model, gptq, calib_file), Store(folder / "store"), folder / "log")
    for extra in ("manifest.json", "quantization.json"):
        (made.checkpoint / extra).unlink()
    next(made.checkpoint.glob("*.safetensors")).rename(made.checkpoint / "model.safetensors")  # auto-gptq names it otherwise
    return made
