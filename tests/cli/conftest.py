"""Real processes with a directory and a store of their own, and the settings of a run that takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from bitsure.config.paths import PROJECT

QUICK = ["quant=rtn3", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.fixture
def bitsure(tmp_path, commands):
    """Return what runs main.py in the test's directory and with its store."""

    def run(*arguments: str, environment: dict | None = None, before: str = "", wait: bool = True):
        own = {"BITSURE_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)} | (environment or {})
        if wait:
            return commands.run(*arguments, cwd=tmp_path, environment=own, before=before)
        command = [sys.executable, str(PROJECT / "main.py"), *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # a background job of a shell ignores Ctrl-C
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, preexec_fn=heed, **output)

    return run


@pytest.fixture(scope="session")
def tiny(tiny_model, calib_file, own_tasks):
    """Return the overrides of a run on the tiny model and task."""
    calib = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=8", "calib.seqlen=64"]
    return [
        "model=local",
        f"model.path={tiny_model}",
        f"task.include_path={own_tasks}",
        "task.names=[tiny_pets]",
        *calib,
        *QUICK,
    ]


class FinishedRun(NamedTuple):
    """A run that other commands go on from; they leave it as it is."""

    overrides: list[str]
    store: Path
    directory: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def finished(commands, tiny, tmp_path_factory) -> FinishedRun:
    """A run on the tiny model and task with everything that is measured."""
    folder, overrides = tmp_path_factory.mktemp("finished"), [*tiny, "compress.measure=true"]
    environment = {"BITSURE_STORE": str(folder / "store"), "HOME": str(folder)}
    done = commands.run(*overrides, "hydra.run.dir=run", cwd=folder, environment=environment, pictures=True)
    assert done.returncode == 0, done.stderr
    return FinishedRun(overrides, folder / "store", folder / "run", done.stdout, done.stderr)
