"""Full precision against quantized: differences with tests, noise control, verdict, published numbers."""

from bitsure.comparison.differences import compare, was_compared
from bitsure.comparison.non_inferiority import judge

__all__ = ["compare", "judge", "was_compared"]
