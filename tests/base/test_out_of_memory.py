"""Memory that runs out is one sentence, whichever library it happens in."""

from __future__ import annotations

import errno

import pytest
import torch

from bitsure.base import out_of_memory
from bitsure.base.errors import UserError
from bitsure.base.out_of_memory import is_out_of_memory, memory_errors


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("can't start new thread"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (UserError("the file mentions: out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_torch_itself_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


def test_the_sentence_says_what_was_done_the_limit_and_the_ways_out(monkeypatch):
    monkeypatch.setattr(out_of_memory, "memory_limits", lambda: {"v": 3 * 2**30, "d": 2**30})
    with pytest.raises(UserError) as caught, memory_errors("loading DIR in float32"):
        torch.empty(2**50)
    message = str(caught.value)
    assert message.startswith("Memory ran out while loading DIR in float32 (RuntimeError: ")
    assert "`ulimit -v` allows this process 3.0 GiB" in message and "model.dtype=bfloat16" in message
    assert "`ulimit -d` allows this process 1.0 GiB: raise it (ulimit -d unlimited)." in message
    with pytest.raises(ValueError, match="a mistake"), memory_errors("loading"):
        raise ValueError("a mistake")
