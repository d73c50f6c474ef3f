"""Names of the array types that metrics take and return."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Features: TypeAlias = Any  # (n, m) numbers of each question: a FloatArray, or scipy's csr_array, which has no types
