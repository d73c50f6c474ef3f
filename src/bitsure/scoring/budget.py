"""How many tokens go into one batch: found by a probe, and less where memory runs out after all."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

log = logging.getLogger(__name__)

PROBE = 512  # tokens of a batch before one was measured
MOST = {"cpu": 2048, "cuda": 32768}  # more is no faster
MOST_LOGITS = 2**25  # values of a plain batch's logits on a CPU
LOGITS_SHARE = 0.1  # of what is free on a GPU, for a plain batch's logits in float32
MEMORY_SHARE = 0.5  # of what is free
SECONDS = 20.0  # of one batch: what a killed process may lose
CGROUP = Path("/sys/fs/cgroup")


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
        with peak_memory(self.device) as peak:
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = time.monotonic() - started
        by_memory = free * MEMORY_SHARE / max(peak() / tokens, 1)
        by_time = SECONDS / (seconds / tokens)
        self.tokens = 2 ** int(math.log2(max(1, min(MOST.get(self.device.type, PROBE), by_memory, by_time))))
        self.probed = True
        log.info("batches of up to %d tokens: the first %d took %.1f MB and %.2f s", self.tokens, tokens, peak() / 1e6, seconds)

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


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device, within the limits that a container sets."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    try:
        limit, used, details = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
    except OSError:
        return free
    cached = dict(line.split() for line in details.splitlines()).get("inactive_file", 0)  # given back when it is needed
    return free if limit == "max" else min(free, int(limit) - int(used) + int(cached))


@contextmanager
def peak_memory(device: torch.device | None = None) -> Iterator:
    """Yields a function that says, after the block, by how many bytes memory rose inside it; 0 where that cannot be known."""
    cuda = device is not None and device.type == "cuda"
    before = peak = 0

    def now() -> tuple[int, int]:
        """What is held, and the most that was held since the last reset."""
        if cuda:
            return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        try:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        except OSError:
            return 0, 0
        return tuple(int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))

    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = now()[0]
    try:
        yield lambda: max(0, peak - before)
    finally:
        peak = now()[1]
