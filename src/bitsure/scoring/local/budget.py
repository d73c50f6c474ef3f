"""How many tokens go into one batch: measured with a probe, and lowered when memory runs out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitsure.base.byte_sizes import binary_size
from bitsure.base.resources import free_memory, watch_memory
from bitsure.scoring.journal import Limits

log = logging.getLogger(__name__)

PROBE_TOKENS = 512  # of a batch before one was measured
MOST_TOKENS = {"cpu": 2048, "cuda": 32768}  # more is no faster
MOST_LOGITS = 2**25  # values of a plain batch's logits on a CPU
LOGITS_SHARE = 0.1  # of what is free on a GPU, for a plain batch's logits in float32
MEMORY_SHARE = 0.5  # of what is free, for a batch
SECONDS = 20.0  # the most that a batch takes: a killed process loses the batches that run


class Budget:
    """How many tokens a batch may have, padding counted.

    Args:
        device: Where the model runs.
        vocabulary: The number of tokens that it gives logits for.
        is_offloaded: Whether weights are brought from elsewhere for each batch. A batch may then take as long as it takes.
    """

    def __init__(self, device: torch.device, vocabulary: int, is_offloaded: bool = False) -> None:
        self.device, self.tokens = device, PROBE_TOKENS
        """The most tokens of a batch."""
        self._is_offloaded = is_offloaded
        self.probed = False
        """Whether a batch was measured, or ran out of memory."""
        values = LOGITS_SHARE * free_memory(device) / 4 if device.type == "cuda" else MOST_LOGITS
        self.with_logits = max(1, int(values / vocabulary))
        """The most tokens of a batch in which every token has logits."""

    @property
    def limits(self) -> Limits:
        """How large batches may be."""
        return Limits(self.tokens, min(self.tokens, self.with_logits))

    @contextmanager
    def measure(self, tokens: int) -> Iterator[None]:
        """Measure a batch of so many tokens, and set by it how large others may be.

        The number is a power of two, so that it is mostly the same when the machine is a little slower or fuller.
        """
        free, started = free_memory(self.device), time.monotonic()
        with watch_memory(self.device) as memory:
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = time.monotonic() - started
        by_memory = free * MEMORY_SHARE / max(memory.rise / tokens, 1)
        by_time = math.inf if self._is_offloaded else SECONDS / (seconds / tokens)
        self.tokens = 2 ** int(math.log2(max(1, min(MOST_TOKENS.get(self.device.type, PROBE_TOKENS), by_memory, by_time))))
        self.probed = True
        size = binary_size(memory.rise)
        log.info("batches of up to %d tokens: the first %d took %s and %.2f s", self.tokens, tokens, size, seconds)

    def shrink(self, tokens: int) -> int:
        """Lower the budget after a batch of so many tokens did not fit. Returns how many may be tried next."""
        self.probed = True
        fewer = max(1, tokens // 2)
        self.tokens = min(self.tokens, fewer)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory with a batch of %d tokens: continuing with %d", tokens, fewer)
        return fewer
