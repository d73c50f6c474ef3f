"""Codes of any number of bits, drawn by Hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CODES = st.integers(1, 8).flatmap(
    lambda bits: st.tuples(
        st.just(bits), arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 40)), elements=st.integers(0, 2**bits - 1))
    )
)
