"""What a GGUF file holds: the types of its tensors, and what of it is not used."""

from __future__ import annotations

from bitsure.results.result import Integer, Result


class TensorType(Result):
    """The tensors of one type in a GGUF file."""

    tensors: list[str]
    """Their names, as llama.cpp has them."""
    weights: Integer
    """The number of their weights."""
    bits_per_weight: float
    """Bits a weight takes in the file, scales counted."""


class GgufOrigin(Result):
    """The GGUF file that a full-precision model was read from."""

    sha256: str
    """The SHA-256 of the file."""
    bytes: Integer
    """The size of the file, bytes."""
    tensor_types: dict[str, TensorType]
    """Type, such as `Q4_K` → its tensors; the type of most weights first."""
    not_used: list[str]
    """What of the file transformers' loader leaves out, a sentence each."""
