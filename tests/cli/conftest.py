"""Real processes with a place of their own, and a run of seconds for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bitsure.config.paths import PROJECT

QUICK = ["quant=rtn3", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.fixture
def bitsure(tmp_path):
    """Runs main.py in a directory and with a store of the test's own."""

    def run(*arguments: str, environment: dict | None = None, wait: bool = True):
        command = [sys.executable, str(PROJECT / "main.py"), *arguments]
        env = os.environ | {"BITSURE_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)} | (environment or {})
        if not wait:
            output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a shell's background job ignores it
            return subprocess.Popen(command, cwd=tmp_path, env=env, preexec_fn=heard, **output)
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def tiny(tiny_model, calib_file, own_tasks):
    """Overrides for a run of seconds on the tiny model and task."""
    calib = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=8", "calib.seqlen=64"]
    return [
        "model=local",
        f"model.path={tiny_model}",
        f"task.include_path={own_tasks}",
        "task.names=[tiny_pets]",
        *calib,
        *QUICK,
    ]
