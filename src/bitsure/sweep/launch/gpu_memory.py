"""What GPUs hold of a model that is scored on them, bytes, computed from its config; none of it was checked on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitsure.base.memo import Memo
from bitsure.config.vllm_settings import VllmSettings
from bitsure.models.facts import context_length, own_dtype, vocabulary_size
from bitsure.models.load import empty_model
from bitsure.models.size import keys_values_of, parameters_of
from bitsure.scoring.local.budget import MEMORY_SHARE, MOST_TOKENS
from bitsure.sweep.launch.assumed_gpu import A100, Gpu
from bitsure.sweep.launch.estimate import WorkPiece
from bitsure.sweep.launch.memory_estimate import FLOAT, LOGITS, bytes_a_token

if TYPE_CHECKING:
    import torch
    from torch import nn

LARGE = 70 * 2**30  # bytes of a GPU from which on vLLM 0.32 runs more tokens at one time, but on an A100
BATCHED = {False: 8192, True: 16384}  # is a GPU so large → the most tokens that vLLM runs at one time


@dataclass(frozen=True)
class ModelOnGpus:
    """A model that is scored on GPUs, without its weights."""

    name: str
    modules: nn.Module
    dtype: torch.dtype
    """That it is computed in."""
    context: int | None
    """Tokens of the longest prompt; None where neither config nor settings say."""
    vocabulary: int

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return parameters_of(self.modules) * self.dtype.itemsize

    def keys_values(self, gpus: int = 1) -> int:
        """Return the bytes of the longest prompt's keys and values in all layers, on one of the GPUs that share the heads."""
        return keys_values_of(self.modules, gpus=gpus) * self.dtype.itemsize * (self.context or 0)


@dataclass(frozen=True)
class VllmMemory:
    """What each GPU holds of a model that vLLM shares among several. Keys and values get all that is left of `share`."""

    share: int
    """Bytes that vLLM takes of a GPU."""
    weights: int
    tokens: int
    """The most that run at one time."""
    activations: int
    """Bytes of those of `tokens`, as if each GPU had them whole."""
    keys_values: int
    """Bytes of those of the longest prompt, the least that vLLM starts with."""
    logits: int
    """Bytes of a prompt's logits and their logarithms, which vLLM 0.32 takes besides its share."""


def model_on_gpus(piece: WorkPiece, memo: Memo) -> ModelOnGpus:
    """Return the model that a piece of work scores; a server's in the type of its checkpoint."""
    import torch

    source = piece.run.source
    modules = memo(empty_model, source.path, source.settings.trust_remote_code)
    dtype = own_dtype(source.settings, source.path) if piece.is_served else piece.run.dtype
    asked = piece.run.scorer.setup.scoring.vllm.context if piece.is_on_vllm else None
    context = asked or context_length(source.path)
    return ModelOnGpus(source.name, modules, getattr(torch, dtype), context, vocabulary_size(source.path) or 0)


def vllm_memory(model: ModelOnGpus, settings: VllmSettings, gpu: Gpu) -> VllmMemory:
    """Return what each of vLLM's GPUs holds."""
    tokens = BATCHED[gpu.memory >= LARGE and A100.name not in gpu.name]
    with_logits = min(tokens, model.context or tokens)
    return VllmMemory(
        share=int(settings.memory_share * gpu.memory),
        weights=model.weights // settings.gpus,
        tokens=tokens,
        activations=tokens * bytes_a_token(model.modules, model.dtype),
        keys_values=model.keys_values(settings.tensor_parallel) // settings.pipeline_parallel,
        logits=with_logits * model.vocabulary * (model.dtype.itemsize + FLOAT),
    )


def local_batch(model: ModelOnGpus, weights: int, gpu: Gpu) -> int:
    """Return the bytes of the largest batch of the local engine on a GPU that holds so many bytes of weights."""
    free = max(0, gpu.memory - weights)
    return int(min(MEMORY_SHARE * free, MOST_TOKENS["cuda"] * bytes_a_token(model.modules, model.dtype) + LOGITS))
