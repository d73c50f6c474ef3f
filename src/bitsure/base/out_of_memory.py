"""What it means that memory ran out, as one error for all libraries."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import UserError
from bitsure.base.resources import memory_limits

# In the messages of torch on a CPU and a GPU, safetensors, Python's threads and the loader of libraries, whose errors have no
# type of their own.
SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "out of memory",
    "Cannot allocate memory",
    "can't start new thread",
    "failed to map segment",
    "unable to mmap",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    may_be = isinstance(error, RuntimeError | OSError | ImportError) or type(error).__name__ == "SafetensorError"
    return may_be and not isinstance(error, UserError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Raise UserError where memory runs out inside the block; other errors pass.

    Args:
        what: What is being done, for the message, such as `loading DIR`.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        limited = "".join(
            f" `ulimit -{option}` allows this process {binary_size(limit)}: raise it (ulimit -{option} unlimited)."
            for option, limit in memory_limits().items()
        )
        raise UserError(
            f"Memory ran out while {what} ({_first_line(error)}).{limited} Ways out: free memory; a larger machine; a smaller "
            "model; model.dtype=bfloat16, half of float32."
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:200]}"
