"""Weight formats, one class a file: what a quantized matrix is made of, how it is dequantized, and what it writes to disk."""

from bitsure.quantize.weights.codebook import CodebookWeight
from bitsure.quantize.weights.dense import DenseWeight
from bitsure.quantize.weights.element import ElementWeight
from bitsure.quantize.weights.gguf_blocks import GgufWeight
from bitsure.quantize.weights.integer import IntegerWeight
from bitsure.quantize.weights.weight import Weight, WeightCodes

__all__ = ["CodebookWeight", "DenseWeight", "ElementWeight", "GgufWeight", "IntegerWeight", "Weight", "WeightCodes"]
