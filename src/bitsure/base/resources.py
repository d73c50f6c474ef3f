"""What a piece of work uses: seconds, and the most memory that is held meanwhile; and how much memory is free."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")  # a container's limits
MMAP_THRESHOLD = -3  # of mallopt: from how many bytes on a block of memory is mapped by itself
LARGE_BLOCK = 2**17  # its default, which glibc raises to 32 MB as large blocks are freed


@dataclass
class MemoryWatch:
    """Bytes held before a block, and the most held inside it; 0 where they are not known."""

    device: torch.device | None
    """A GPU, whose tensors are counted; otherwise the process's resident memory is."""
    before: int = 0
    """Bytes held when the block began."""
    peak: int = 0
    """The most bytes held inside the block; known when it has ended."""

    @property
    def rise(self) -> int:
        """How many bytes the block held on top of what was held before it."""
        return max(0, self.peak - self.before)


@dataclass
class ResourceUse:
    """What a block used; filled in when it has ended."""

    seconds: float = 0.0
    """Wall time, seconds."""
    peak_memory_bytes: int | None = None
    """The most resident memory of the process, bytes, with what it held before the block; None where it is not known."""
    peak_gpu_memory_bytes: int | None = None
    """The most that tensors took on all GPUs, bytes; None without a GPU."""


_open_watches: list[MemoryWatch] = []  # the mark is the process's: whoever resets it first notes it for all of these


@contextmanager
def watch_memory(device: torch.device | None = None) -> Iterator[MemoryWatch]:
    """Watch how much memory a block holds.

    Blocks may be nested.

    Args:
        device: A GPU, to count what tensors take on it; otherwise the process's resident memory is counted.

    Yields:
        The watch. Its `peak` is known when the block has ended.
    """
    _note_peaks()
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call] # without it there is no mark to reset
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the process's high-water mark
    watch = MemoryWatch(device, before=_held(device)[0])
    _open_watches.append(watch)
    try:
        yield watch
    finally:
        _note_peaks()
        _open_watches[:] = [other for other in _open_watches if other is not watch]


@contextmanager
def measured() -> Iterator[ResourceUse]:
    """Measure the time and the memory of a block.

    Yields:
        An object whose fields are filled in when the block has ended.
    """
    import torch

    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    use, started = ResourceUse(), time.monotonic()
    with ExitStack() as stack:
        host, *on_gpus = [stack.enter_context(watch_memory(device)) for device in (None, *gpus)]
        yield use
        use.seconds = round(time.monotonic() - started, 3)
    use.peak_memory_bytes = host.peak or None
    use.peak_gpu_memory_bytes = sum(watch.peak for watch in on_gpus) if gpus else None


def free_memory(device: torch.device) -> int:
    """Return how many bytes can still be had on a device, within the limits of a container."""
    if device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(device)[0]
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    available = int(psutil.virtual_memory().available)
    if allowed := memory_limits().get("v"):
        available = max(0, min(available, allowed - int(psutil.Process().memory_info().vms)))
    try:
        limit, used, details = (
            (CGROUP / f"memory.{name}").read_text(encoding="utf-8").strip() for name in ("max", "current", "stat")
        )
    except OSError:
        return available
    cached = dict(line.split() for line in details.splitlines()).get("inactive_file", 0)  # given back when it is needed
    return available if limit == "max" else min(available, int(limit) - int(used) + int(cached))


def keep_no_large_blocks() -> None:
    """Have the C library return large blocks to the system as soon as they are freed, for the rest of the process.

    Otherwise it takes small objects from the places of freed tensors, which are then too small for the next ones. So the memory
    of a model whose layers come and go grows with all of its layers. Mapping each block costs time.
    """
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BLOCK)


def return_freed() -> None:
    """Have the C library return to the system the whole pages of what is freed, which it may keep for later."""
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def memory_limits() -> dict[str, int]:
    """Return the bytes that this process may have, by the option of `ulimit` that limits them: v, address space; d, data."""
    if sys.platform == "win32":
        return {}
    import resource

    limits = {"v": resource.getrlimit(resource.RLIMIT_AS)[0], "d": resource.getrlimit(resource.RLIMIT_DATA)[0]}
    return {option: limit for option, limit in limits.items() if limit != resource.RLIM_INFINITY}


def _note_peaks() -> None:
    """Note the high-water marks as they are now in all open watches: resetting the mark must lose none of them."""
    for watch in _open_watches:
        watch.peak = max(watch.peak, _held(watch.device)[1])


def _held(device: torch.device | None) -> tuple[int, int]:
    """Return the bytes held now, and the most that were held since the mark was reset."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0, 0
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024
