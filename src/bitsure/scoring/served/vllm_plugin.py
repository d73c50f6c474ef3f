"""What vLLM loads into each of its processes (an entry point in pyproject.toml): they end with the run that started them.

vLLM's engine waits for ever for a process that was killed, and holds its GPUs meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os

from bitsure.base.processes import end_with_parent

STARTED_BY = "BITSURE_STARTED_VLLM"  # of the environment: the number of the process that vLLM's processes belong to


def end_with_run() -> None:
    """End this process with its parent's, if it is one that a run of bitsure lets vLLM start."""
    started_by = os.environ.get(STARTED_BY)
    if started_by and started_by != str(os.getpid()) and multiprocessing.parent_process():
        end_with_parent()
