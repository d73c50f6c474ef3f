"""vLLM's own server, in its environment (`make test-vllm`): its log-probabilities are those of the local engine."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.paths import PROJECT
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_tokenizer
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.served import self_test
from bitsure.scoring.served.completion import DIALECTS
from bitsure.scoring.served.completions_client import CompletionsClient
from bitsure.scoring.served.served_engine import ServedEngine
from bitsure.scoring.served.server import contact
from tests.builders.requests import three_shapes

PYTHON = PROJECT / ".venv-vllm" / "bin" / "python"
MODEL = PROJECT / "pocket" / "models" / "pocket-llama-1m"
SECONDS = 600  # that a server may take to start
TOLERANCE = 1e-4  # nats, in float32
VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="vLLM's environment is missing: make test-vllm")]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    """The address of a server that runs the pocket Llama in float32; it is stopped in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "pocket"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    address = ServerAddress("model", f"http://127.0.0.1:{port}/v1", None)
    with (tmp_path_factory.mktemp("vllm") / "log").open("w+") as log:
        server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=os.environ | VARIABLES)
        try:
            for _ in range(SECONDS):
                try:
                    CompletionsClient(address, 5).get("/models")
                    break
                except UserError:
                    assert server.poll() is None, log.seek(0) or log.read()
                    time.sleep(1)
            yield address
        finally:
            server.terminate()
            server.wait(60)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_log_probabilities_are_those_of_the_local_engine(vllm, dialect, tmp_path, monkeypatch):
    monkeypatch.setattr(self_test, "DIALECTS", (dialect,))
    source = locate_tokenizer(ModelSettings(path=str(MODEL)), None)
    server = contact(vllm, ServerSettings(), source, Store(tmp_path))
    assert server.origin.asked_by == dialect.name and server.origin.context == 640
    assert server.origin.nondeterminism < TOLERANCE and server.origin.inconsistency < TOLERANCE
    served = ServedEngine(server, server.context, 1)
    local = LocalEngine(load_model(MODEL, "float32")[0], served.max_length)
    for shape, requests in three_shapes().items():
        answers, expected = served.score(requests), local.score(requests)
        differences = [
            np.abs(np.subtract(answer.token_logprobs, other.token_logprobs)).max()
            for answer, other in zip(answers, expected, strict=True)
        ]
        assert max(differences) < TOLERANCE, shape
        assert [answer.greedy for answer in answers] == [other.greedy for other in expected]
