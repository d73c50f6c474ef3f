"""Where a run's numbers come from: versions, commit, machine, command. No secrets: of the environment the threads alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from bitsure.config.paths import PROJECT

PACKAGES = (
    "bitsure",
    "torch",
    "transformers",
    "lm_eval",
    "gptqmodel",
    "auto_gptq",
    "datasets",
    "tokenizers",
    "hydra-core",
    "numpy",
    "wandb",
)


def collect() -> dict:
    """What does not depend on the config; the pipeline adds what it finds out about model, data and quantizer."""
    return {
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": _threads(),
        },
    }


def _threads() -> str | None:
    """How many threads were asked for, if it was said: sums in another order make GPTQ choose other codes."""
    return os.environ.get("OMP_NUM_THREADS")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # no environment holds both GPTQ libraries
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
