"""What a GGUF file holds: the types of its tensors, and what of it is not used."""

from __future__ import annotations

from bitsure.results.result import Integer, Result

FLOATS = {"F32", "F16", "BF16"}  # types of numbers as they are; every other type has blocks of codes and scales


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

    @property
    def decoded_bits(self) -> int:
        """The bits of a weight once the file is decoded: 16 if it holds such numbers and no blocks, else 32."""
        return 16 if self.tensor_types.keys() <= FLOATS and self.tensor_types.keys() != {"F32"} else 32
