"""The sentences of a plan on the memory of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from bitsure.base.byte_sizes import binary_size
from bitsure.base.memo import Memo
from bitsure.compress.model_compressibility import KIND as COMPRESSIBILITY
from bitsure.config.vllm_settings import VllmSettings
from bitsure.sweep.launch.assumed_gpu import A100, Gpu, gpu_here
from bitsure.sweep.launch.estimate import WorkPiece
from bitsure.sweep.launch.gpu_memory import ModelOnGpus, local_batch, model_on_gpus, vllm_memory

BEGINNING = "GPU memory, by arithmetic: "
UNKNOWN = "How a server spreads a model over its GPUs, and how large a quantized one is, is not known here."
PACKED = " Packed weights (scoring.dequantize=false) take less; how much less is not known here."


def sentences(pieces: Sequence[WorkPiece], memo: Memo, on_nodes: bool) -> list[str]:
    """Return what the memory of GPUs has to hold, of the largest model that each engine scores on them.

    Args:
        pieces: The work that an estimate is of.
        memo: Knows models without weights.
        on_nodes: Whether the work is for other machines, which have GPUs.
    """
    described = []
    for describe in (_describe_server, _describe_vllm, _describe_local):
        of_engine = [piece for piece in pieces if _describer(piece, on_nodes) is describe]
        models = [(model_on_gpus(piece, memo), piece) for piece in of_engine]
        if models:
            model, piece = max(models, key=lambda pair: (pair[0].weights, not _is_packed(pair[1])))
            described.append(BEGINNING + describe(piece, model))
    return described


def _describer(piece: WorkPiece, on_nodes: bool) -> Callable[[WorkPiece, ModelOnGpus], str] | None:
    """Return the function that describes a piece's GPUs; None where it needs none."""
    if piece.kind in ("weights", COMPRESSIBILITY):
        return None
    if piece.is_served:
        return _describe_server
    if piece.is_on_vllm:
        return _describe_vllm if on_nodes or gpu_here() or piece.is_elsewhere else None
    return _describe_local if (on_nodes or gpu_here()) and not piece.is_kept_on_cpu else None


def _is_packed(piece: WorkPiece) -> bool:
    """Return whether a quantized model is scored without unpacking its weights."""
    return not (piece.is_baseline or piece.run.scorer.setup.scoring.dequantize)


def _describe_vllm(piece: WorkPiece, model: ModelOnGpus) -> str:
    settings, gpu = piece.run.scorer.setup.scoring.vllm, gpu_here() or A100
    memory = vllm_memory(model, settings, gpu)
    each = f"each of {piece.gpus} GPUs" if piece.gpus > 1 else "a GPU"
    share, batch, logits = map(binary_size, (memory.share, memory.activations, memory.logits))
    parts = [
        f"{each} ({_kind(gpu)}) holds {_weights(model, memory.weights)}.",
        f"Of the {share} of scoring.vllm.memory_share={settings.memory_share}, {memory.tokens:,} tokens at one time take up to",
        f"{batch}, and keys and values the rest: {_prompt(model, memory.keys_values)}.",
        f"A prompt's logits take up to {logits} besides.",
    ]
    if memory.weights + memory.activations + memory.keys_values > memory.share:
        fits = "does not fit" if memory.weights > memory.share and not _is_packed(piece) else "may not fit"
        parts.append(f"It {fits}: give more GPUs (scoring.vllm.tensor_parallel), or lower scoring.vllm.context.")
    elif memory.share + memory.logits > gpu.memory:
        parts.append("They do not fit: lower scoring.vllm.memory_share or scoring.vllm.context.")
    return " ".join(parts) + PACKED * _is_packed(piece)


def _describe_local(piece: WorkPiece, model: ModelOnGpus) -> str:
    gpu, weights = gpu_here() or A100, model.weights * (2 if piece.run.attributes else 1)
    if piece.run.source.settings.device_map is not None:
        batch = binary_size(local_batch(model, 0, gpu))
        return (
            f"all GPUs (each {_kind(gpu)}) together hold {_weights(model, weights)}, and a batch takes up to {batch} of one of "
            "them, keys and values included."
        )
    batch = binary_size(local_batch(model, weights, gpu))
    sentence = f"a GPU ({_kind(gpu)}) holds {_weights(model, weights)}, and up to {batch} of a batch, keys and values included."
    if _is_packed(piece):
        return sentence + PACKED
    return sentence + " It does not fit: model.device_map=auto spreads it over several GPUs." * (weights > gpu.memory)


def _describe_server(piece: WorkPiece, model: ModelOnGpus) -> str:
    by_default = VllmSettings().memory_share * A100.memory
    keys_values = model.keys_values()
    gpus = ceil((model.weights + keys_values) / by_default)
    return (
        f"the server's model has {_weights(model, model.weights)}, and keys and values: {_prompt(model, keys_values)}. "
        f"{gpus} GPU{'s have' if gpus > 1 else ' has'} room for them ({_kind(A100)}); activations take more. {UNKNOWN}"
    )


def _weights(model: ModelOnGpus, size: int) -> str:
    return f"{binary_size(size)} of {model.name}'s weights in {str(model.dtype).removeprefix('torch.')}"


def _prompt(model: ModelOnGpus, size: int) -> str:
    if model.context is None:
        return "config.json does not say for how many tokens"
    return f"up to {binary_size(size)} for a prompt of {model.context:,} tokens"


def _kind(gpu: Gpu) -> str:
    return f"{gpu.name}, {binary_size(gpu.memory)}"
