"""Records of a model in full precision and quantized, whose right answers lose a known amount."""

from __future__ import annotations

import numpy as np

from bitsure.records.record import Records, to_table
from tests.builders.records import record


def full_and_quantized(loss: float, seed: int, n: int = 400, first: int = 0) -> list[Records]:
    """Return both runs; the right answers lose `loss` in log-odds on average."""
    random = np.random.default_rng(seed)
    full = random.normal(size=(n, 2))
    quantized = full.copy()
    quantized[:, 0] -= loss + 0.2 * random.normal(size=n)

    def rows(logits) -> Records:
        return to_table([record(z - np.logaddexp.reduce(z), gold=0, doc_id=first + i) for i, z in enumerate(logits)])

    return [rows(full), rows(quantized)]
