"""How the questions of a task are resampled: alone, or together where they depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.config.metric import MetricSettings
from bitsure.metrics import bootstrap
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.records.text_units import token_units, unit_of

FEWEST_CLUSTERS = 30


def cluster_codes(names: Sequence[str], prompts: Sequence[str]) -> IntArray | None:
    """Return each question's cluster, from 0; None where every question is alone.

    Args:
        names: The clusters' names of one task's questions.
        prompts: Their prompts' hashes, which are the clusters of a task that names none: few of them are no clusters.
    """
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    fewest = FEWEST_CLUSTERS if list(names) == list(prompts) else 2
    return codes if fewest <= len(numbers) < len(codes) else None


class Resampling:
    """The clusters of a task's questions and the weights of its bootstrap.

    Attributes:
        clusters: Each question's cluster, shape (n,), from 0; None where every question is alone.
        n_clusters: Number of clusters; None where every question is alone.
        unit: What is resampled, in words.
    """

    def __init__(self, n: int, clusters: IntArray | None, settings: MetricSettings, unit: str = "question") -> None:
        self.clusters = clusters
        self.n_clusters = None if clusters is None else int(clusters.max()) + 1
        self.unit = f"{unit}s" if clusters is None else f"clusters of {unit}s ({self.n_clusters:,})"
        self._n, self._settings = n, settings

    @property
    def units(self) -> int:
        """The number of clusters, or of questions where every one is alone."""
        return self._n if self.n_clusters is None else self.n_clusters

    @cached_property
    def weights(self) -> FloatArray | None:
        """How often each question counts in each resample, shape (n, resamples); None for too many questions."""
        if self._n > bootstrap.MOST_RESAMPLED:
            return None
        return bootstrap.resample_weights(self._n, self._settings.resamples, self._settings.seed, self.clusters)

    @classmethod
    def of_tokens(cls, records: pa.Table, settings: MetricSettings) -> Resampling:
        """Return the resampling of the tokens of one text's records: documents or windows are drawn whole."""
        units = token_units(records)
        resampling = cls(len(units), units, settings)
        resampling.unit = f"{unit_of(records)}s ({len(records):,})"
        return resampling

    @classmethod
    def of_records(cls, records: pa.Table, settings: MetricSettings) -> Resampling:
        """Return the resampling of one task's records, by their column `cluster`, or by their prompts where that is null.

        One cluster that holds all questions leaves nothing to resample. A few prompts that all questions share (often an empty
        one) do not make questions depend on each other. In both cases every question is alone.
        """
        prompts = records["prompt_hash"]
        names = pc.coalesce(records["cluster"], prompts)
        return cls(len(records), cluster_codes(names.to_pylist(), prompts.to_pylist()), settings, unit_of(records))
