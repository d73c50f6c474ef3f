"""How many tokens go into one batch: found by a probe, and less where memory runs out after all."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitsure.base.resources import free_memory, watch_memory

log = logging.getLogger(__name__)

PROBE = 512  # tokens of a batch before one was measured
MOST = {"cpu": 2048, "cuda": 32768}  # more is no faster
MOST_LOGITS = 2**25  # values of a plain batch's logits on a CPU
LOGITS_SHARE = 0.1  # of what is free on a GPU, for a plain batch's logits in float32
MEMORY_SHARE = 0.5  # of what is free
SECONDS = 20.0  # of one batch: what a killed process may lose


class Budget:
    """`tokens` of a batch, padding counted; no more than `with_logits` of them where every token has logits."""

    def __init__(self, device: torch.device, vocabulary: int):
        self.device, self.tokens, self.probed = device, PROBE, False
        values = LOGITS_SHARE * free_memory(device) / 4 if device.type == "cuda" else MOST_LOGITS
        self.with_logits = max(1, int(values / vocabulary))

    @contextmanager
    def measure(self, tokens: int) -> Iterator[None]:
        """Around a batch of that many tokens, which says how large others may be: a power of two, so that it is mostly the
        same on a machine that is a little slower or fuller at another time.
        """
        free, started = free_memory(self.device), time.monotonic()
        with watch_memory(self.device) as memory:
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = time.monotonic() - started
        by_memory = free * MEMORY_SHARE / max(memory.rise / tokens, 1)
        by_time = SECONDS / (seconds / tokens)
        self.tokens = 2 ** int(math.log2(max(1, min(MOST.get(self.device.type, PROBE), by_memory, by_time))))
        self.probed = True
        log.info(
            "batches of up to %d tokens: the first %d took %.1f MB and %.2f s", self.tokens, tokens, memory.rise / 1e6, seconds
        )

    def shrink(self, tokens: int) -> int:
        """After a batch of that many tokens did not fit: how many may be tried."""
        self.probed = True
        fewer = max(1, tokens // 2)
        self.tokens = min(self.tokens, fewer)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory with a batch of %d tokens: on with %d", tokens, fewer)
        return fewer


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")  # what a RuntimeError may say


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says so; on a CPU torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
