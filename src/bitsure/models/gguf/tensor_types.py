"""Which tensors of a GGUF file have which type, and what a weight of each takes."""

from __future__ import annotations

from bitsure.models.gguf.gguf_header import GgufFile
from bitsure.results.gguf import TensorType


def summarize_types(gguf: GgufFile) -> dict[str, TensorType]:
    """Return type → its tensors and bits, from the sizes of the real blocks; the type of most weights first."""
    by_type: dict[str, list[str]] = {}
    for tensor in gguf.tensors.values():
        by_type.setdefault(tensor.type.name, []).append(tensor.name)
    summary = {}
    for name, tensors in by_type.items():
        weights = sum(gguf.tensors[tensor].weights for tensor in tensors)
        stored = sum(gguf.tensors[tensor].bytes for tensor in tensors)
        summary[name] = TensorType(tensors=tensors, weights=weights, bits_per_weight=8 * stored / weights)
    return dict(sorted(summary.items(), key=lambda item: -item[1].weights))
