"""The GPU that an estimate is for: this machine's, or one that is assumed where the work is for GPUs that are not here."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.scoring.served.vllm_program import installed_vllm


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU."""

    name: str
    memory: int
    """Bytes of memory."""


A100 = Gpu("A100", 80 * 2**30)
A100_SPEED, A100_AT_WORK = 1e14, "A100 in bfloat16 at a third of its peak"  # operations a second
A100_QUANTIZING = 2.5e13  # the same of `quantizing_work`: GPTQ of 175 billion parameters in four hours (Frantar et al. 2023)


def gpu_here() -> Gpu | None:
    """Return this machine's first GPU; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), int(torch.cuda.get_device_properties(0).total_memory))


def are_elsewhere(scoring: ScoringSettings) -> bool:
    """Return whether vLLM is to run on GPUs of another machine: this one has none, and vLLM gets several or is not here."""
    return scoring.engine == VLLM and gpu_here() is None and (scoring.vllm.gpus > 1 or installed_vllm() is None)
