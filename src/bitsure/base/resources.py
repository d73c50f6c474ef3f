"""What a piece of work takes: seconds, and the most memory that is held meanwhile, of what is free; and costs.json, which tells
it of a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

QUANTIZING = ("seconds", "peak_memory_bytes", "peak_gpu_memory_bytes")  # of quantization.json
CGROUP = Path("/sys/fs/cgroup")


@dataclass
class Memory:
    """Bytes held before a block and, after it, at the most inside it; 0 where that cannot be known."""

    device: torch.device | None
    before: int = 0
    peak: int = 0

    @property
    def rise(self) -> int:
        return max(0, self.peak - self.before)


_watched: list[Memory] = []  # by blocks that are open: setting the high-water mark back for one is no loss to the others


@contextmanager
def watch_memory(device: torch.device | None = None) -> Iterator[Memory]:
    """What a block holds: the process's resident memory, or on a GPU what tensors take. Blocks may lie in each other."""
    _note()
    if _is_cuda(device):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    memory = Memory(device, before=_held(device)[0])
    _watched.append(memory)
    try:
        yield memory
    finally:
        _note()
        _watched[:] = [one for one in _watched if one is not memory]


@contextmanager
def measured() -> Iterator[dict]:
    """Yields a dict that has after the block its seconds, peak_memory_bytes (the whole process's, so that what was held before
    and used again counts as well) and peak_gpu_memory_bytes (tensors on all GPUs; None without one).
    """
    import torch

    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if gpus:
        torch.cuda.init()
    took, started = {}, time.monotonic()
    with ExitStack() as stack:
        host, *on_gpus = [stack.enter_context(watch_memory(device)) for device in (None, *gpus)]
        yield took
        took["seconds"] = round(time.monotonic() - started, 3)
    took["peak_memory_bytes"] = host.peak or None
    took["peak_gpu_memory_bytes"] = sum(one.peak for one in on_gpus) if gpus else None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device, within the limits that a container sets."""
    if _is_cuda(device):
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    try:
        limit, used, details = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
    except OSError:
        return free
    cached = dict(line.split() for line in details.splitlines()).get("inactive_file", 0)  # given back when it is needed
    return free if limit == "max" else min(free, int(limit) - int(used) + int(cached))


def of_scoring(by_task: dict[str, dict | None]) -> dict | None:
    """Of all tasks together and of each: seconds, tokens (padding counted), tokens per second, and the highest peaks.

    by_task: what the store keeps beside a task's records; None where scoring was broken off and went on, so that nobody knows
    what all of it took. None where that is so of every task.
    """
    known = {task: {key: cost.get(key) for key in ("tokens", *QUANTIZING)} for task, cost in by_task.items() if cost}
    if not known:
        return None
    total = {key: sum(one[key] for one in known.values()) for key in ("seconds", "tokens")}
    peaks = {key: [one[key] for one in known.values() if one[key] is not None] for key in QUANTIZING[1:]}
    total |= {key: max(values, default=None) for key, values in peaks.items()}
    return total | {
        "tokens_per_second": _rate(total),
        "by_task": {task: one | {"tokens_per_second": _rate(one)} for task, one in known.items()},
    }


def _rate(one: dict) -> float | None:
    return one["tokens"] / one["seconds"] if one["seconds"] else None


def _note() -> None:
    """The high-water marks as they are now, to all who watch."""
    for memory in _watched:
        memory.peak = max(memory.peak, _held(memory.device)[1])


def _is_cuda(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda"


def _held(device: torch.device | None) -> tuple[int, int]:
    """What is held, and the most that was held since the mark was set back."""
    if _is_cuda(device):
        import torch

        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return 0, 0
    return tuple(int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
