"""Full precision against quantized: differences, tests, noise control, verdict, choice of a quantizer, published numbers."""

from bitsure.comparison.differences import compare, was_compared
from bitsure.comparison.non_inferiority import judge

__all__ = ["compare", "judge", "was_compared"]
