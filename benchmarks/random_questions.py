"""Random questions of the shapes of known tasks, and models to score them, of which some have random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bitsure.config.paths import PROJECT
from bitsure.scoring.requests import Request


@dataclass(frozen=True)
class Shape:
    """Questions of one kind; ranges are inclusive, in tokens."""

    name: str
    questions: int  # that take HFLM a quarter of a minute with opt-125m
    context: tuple[int, int]
    choices: int
    continuation: tuple[int, int]
    examples: int = 0  # tokens of few-shot examples before every context
    same_examples: bool = False


SHAPES = (
    Shape("HellaSwag", 36, (40, 110), 4, (12, 40)),
    Shape("ARC", 120, (25, 25), 4, (5, 5)),
    Shape("PIQA", 180, (18, 18), 2, (20, 20)),
    Shape("BoolQ", 120, (130, 130), 2, (1, 1)),
    Shape("ARC, 5 own examples", 12, (25, 25), 4, (5, 5), examples=250),
    Shape("ARC, 5 shared examples", 12, (25, 25), 4, (5, 5), examples=250, same_examples=True),
)
OPT = {
    "opt-125m": {
        "hidden_size": 768,
        "word_embed_proj_dim": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "opt-1.3b": {
        "hidden_size": 2048,
        "word_embed_proj_dim": 2048,
        "ffn_dim": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
    },
}
LLAMA = {
    "llama-1.3b": {
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 32000,
    }
}


def build_model(name: str, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """A random model of a known shape, or a pocket model; weights do not matter for time."""
    from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

    torch.manual_seed(0)
    if name in OPT:
        model = AutoModelForCausalLM.from_config(OPTConfig(**OPT[name]))
    elif name in LLAMA:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA[name]))
    else:
        model = AutoModelForCausalLM.from_pretrained(directory_of(name))
    return model.to(device, dtype).eval()


def directory_of(name: str) -> Path:
    """Where a pocket model is, or a real one (`make real-models`)."""
    embedded = PROJECT / "pocket" / "models" / name
    return embedded if embedded.is_dir() else PROJECT / "real_models" / name


def draw(shape: Shape, n: int, vocabulary: int, seed: int = 0) -> list[Request]:
    """Return the requests of `n` questions, a request for each choice, of random tokens."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return rng.integers(5, vocabulary, rng.integers(low, high + 1)).tolist()

    shared = tokens(shape.examples, shape.examples)
    requests = []
    for _ in range(n):
        context = (shared if shape.same_examples else tokens(shape.examples, shape.examples)) + tokens(*shape.context)
        requests += [(context, tokens(*shape.continuation)) for _ in range(shape.choices)]
    return requests
