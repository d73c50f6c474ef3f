"""How fast this machine is while a plan is made, other work on it counted."""

from __future__ import annotations

import functools
import time

PROBE_SECONDS = 0.3
SIZE = 1024  # of the matrices


@functools.cache
def gemm_speed(device: str) -> float:
    """Return the floating-point operations a second of matrix products on this machine's cpu or cuda."""
    import torch

    a = torch.rand(SIZE, SIZE, device=device)
    (a @ a).sum().item()  # starts threads, or loads the GPU's kernels
    started, products, seconds = time.perf_counter(), 0, 0.0
    while seconds < PROBE_SECONDS:
        (a @ a).sum().item()
        products, seconds = products + 1, time.perf_counter() - started
    return products * 2 * SIZE**3 / seconds


@functools.cache
def slowdown() -> float:
    """Return how many times as long as on a machine without other work a thread takes here; 1 where there is none."""
    started, used = time.perf_counter(), time.thread_time()
    while time.perf_counter() - started < PROBE_SECONDS:
        pass
    return max(1.0, (time.perf_counter() - started) / (time.thread_time() - used))
