"""vLLM beside our own engine in `make bench-scoring`: a process in vLLM's environment, which answers one line by one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.config.paths import PROJECT
from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.config.vllm_settings import VllmSettings
from bitsure.scoring.requests import Request

if TYPE_CHECKING:
    import torch

PYTHON = PROJECT / ".venv-vllm" / "bin" / "python"
TYPES = ("float32", "bfloat16")
CONTEXT = 2048
VARIABLES = {  # vLLM and its model in one process, on the threads of OMP_NUM_THREADS
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmProcess:
    """A model that vLLM runs in a process of its own.

    Args:
        directory: The model's.
        dtype: The computing type.
        threads: How many threads it has.
        log_file: Where it writes.
    """

    def __init__(self, directory: Path, dtype: str, threads: int, log_file: Path) -> None:
        self._log_file = log_file
        command = [PYTHON, "-m", "benchmarks.vllm_engine", directory, dtype, log_file]
        places = {"PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with log_file.open("ab") as errors:
            self._process = subprocess.Popen(
                list(map(str, command)), cwd=PROJECT, env=os.environ | VARIABLES | places, stderr=errors, **pipes
            )
        self._answer()

    def score(self, requests: list[Request]) -> tuple[float, list[float]]:
        """Return the seconds that some requests take, and their log-likelihoods, nats."""
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        seconds, logprobs = self._answer()
        return seconds, logprobs

    def stop(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> list:
        line = self._process.stdout.readline()
        assert line, f"vLLM's process has ended: {self._log_file.read_text(encoding='utf-8')}"
        return json.loads(line)


@contextmanager
def vllm_processes(name: str, model: torch.nn.Module, device: str) -> Iterator[dict[str, VllmProcess]]:
    """The model as vLLM runs it, in each type; none where its environment is missing, or is not one for this device."""
    if device != "cpu" or not PYTHON.exists():
        yield {}
        return
    import torch

    from benchmarks.random_questions import directory_of
    from tests.builders.tokenizers import byte_tokenizer

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        directory = directory_of(name)
        if not directory.is_dir():  # a random model
            directory = Path(folder, "model")
            model.save_pretrained(directory)
            byte_tokenizer().save_pretrained(directory)
        processes = {}
        for dtype in TYPES:
            processes[f"vLLM {dtype}"] = VllmProcess(directory, dtype, torch.get_num_threads(), Path(folder, f"{dtype}.log"))
            stack.callback(processes[f"vLLM {dtype}"].stop)
        yield processes


def main() -> None:
    """Load a model, say so, and score each line of requests."""
    from bitsure.config.model import ModelSettings
    from bitsure.models.locate import locate_model
    from bitsure.scoring.vllm_setup import VllmSetup

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    source = locate_model(ModelSettings(path=sys.argv[1]), None)
    setup = VllmSetup(ScoringSettings(VLLM, vllm=VllmSettings(context=CONTEXT, eager=True)), sys.argv[2], Path(sys.argv[3]))
    with ExitStack() as stack:
        engine = setup.engine(setup.load(source, None, stack), CONTEXT)
        print(json.dumps([]), file=answers, flush=True)
        for line in sys.stdin:
            requests = [(context, continuation) for context, continuation in json.loads(line)]
            started = time.perf_counter()
            scored = engine.score(requests)
            seconds = time.perf_counter() - started
            print(json.dumps([seconds, [result.logprob for result in scored]]), file=answers, flush=True)


if __name__ == "__main__":
    main()
