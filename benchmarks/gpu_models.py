"""The models of `make bench-gpu`: shapes with random weights, made on the device; tiny ones where there is no GPU."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.multiply_adds import timed
from benchmarks.random_questions import Shape, draw
from bitsure.scoring.requests import Request

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
DTYPE = "bfloat16" if ON_GPU else "float32"
NAMES = ("HellaSwag", "ARC", "ARC, 5 shared examples")
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "1.3B": ("llama", {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16}),
    "7B": ("llama", {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}),
    "125m": ("opt", {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_hidden_layers": 12}),
}
QUESTIONS = {"1.3B": 800, "7B": 200, "125m": 1600}
BATCH_SIZES = (256, 64, 16)
BLOCKS = {"7B": 2, "1.3B": 4}  # that GPTQ quantizes
WINDOWS, SEQLEN = 128, 2048  # of its calibration text
PART = {"cuda": 256, "cpu": 32}  # tokens of a row whose attention is computed at once
if not ON_GPU:
    MODELS = {
        "tiny": ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2})
    }
    QUESTIONS, BATCH_SIZES, BLOCKS, WINDOWS, SEQLEN = {"tiny": 4}, (4,), {"tiny": 2}, 2, 64


def build_model(name: str, **changes: int) -> Any:
    """Return a model of a shape on the device, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, shape = MODELS[name]
    torch.manual_seed(0)
    with DEVICE:
        config = AutoConfig.for_model(family, **shape | changes)
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPE)).eval()


def matrix_peak() -> float:
    """Return multiply-adds a second of the product of two large square matrices; the best of ten."""
    n = 8192 if ON_GPU else 512
    a = torch.randn(n, n, dtype=getattr(torch, DTYPE), device=DEVICE)
    return max(n**3 / timed(lambda: a @ a)[0] for _ in range(10))


def requests_of(shape: Shape, model: str, vocabulary: int) -> list[Request]:
    """Return a shape's requests: fewer of the long ones, which take HFLM as many times as long."""
    return draw(shape, QUESTIONS[model] // (2 if shape.examples else 1), vocabulary)
