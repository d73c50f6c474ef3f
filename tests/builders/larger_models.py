"""A model that is larger than the memory that a program may have: what builds it, and programs that run under such a limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.builders.tokenizers import byte_tokenizer

BLOCKS, WIDTH, WIDE = 64, 512, 1408  # 822 MB in float32: blocks of 12.8 MB
ALLOWED = 380 * 2**20  # bytes of address space that a program may have on top of what its libraries take: 398 MB
REQUESTS = [([5 + q % 90, *range(40, 80), 7 + q // 90], [9, 10 + c, 30]) for q in range(120) for c in range(4)]
LIMIT = f"""
import resource
def limit():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + {ALLOWED},) * 2)
"""


def write_larger_model(path: Path) -> Path:
    """Write a random Llama in files of some blocks each."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=WIDE,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(path, max_shard_size="50MB")
    byte_tokenizer().save_pretrained(path)
    return path


def run_limited(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that calls `limit()` when its libraries are loaded."""
    command = [sys.executable, "-c", LIMIT + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=570)
