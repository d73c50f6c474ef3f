"""What tests of quantizing share: token ids, families with every kind of mask, and settings of GPTQ."""

from __future__ import annotations

import torch

from tests.builders.families import FALCON, FAMILIES, GROUPED

WINDOWS = torch.randint(3, 290, (6, 24), generator=torch.Generator().manual_seed(0))
ALL = FAMILIES | {
    "falcon": FALCON | {"alibi": True},
    "gemma2": GROUPED | {"head_dim": 16, "sliding_window": 16},  # masks differ from block to block
    "mistral": GROUPED | {"sliding_window": 16},
}
NATIVE = {"bits": 4, "group_size": 32, "symmetric": True, "backend": "native", "desc_act": False, "damp_percent": 0.01}


def nothing(*args, **kwargs) -> None:
    pass


def output_error(x, original, weight) -> float:
    return ((x @ (weight.dequantize() - original).T).norm() / (x @ original.T).norm()).item()
