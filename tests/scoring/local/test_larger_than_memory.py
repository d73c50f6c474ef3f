"""A model of twice the memory that the process may have is scored, from disk."""

from __future__ import annotations

import json
import resource
import sys

import pytest

from bitsure.models.load import load_model
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.larger_models import REQUESTS, run_limited, write_larger_model
from tests.builders.marks import needs_transformers_5

SCORE = """
import json, sys, torch
from pathlib import Path
from bitsure.config.model import ModelSettings
from bitsure.models.load import load_model
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.larger_models import REQUESTS
torch.set_num_threads(1)
def score(path, size):
    settings = ModelSettings(path=path, device_map="auto", max_memory=[f"cpu:{size}"])
    model, _ = load_model(Path(path), "float32", settings=settings)
    return [scored.logprob for scored in LocalEngine(model, 256).score(REQUESTS)]
larger, small = sys.argv[1:]
score(small, "300KB")  # loads the libraries
limit()
print(json.dumps(score(larger, "60MB")))
"""


@pytest.mark.slow
@needs_transformers_5
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs a limit on address space")
def test_a_model_of_twice_the_memory_scores_as_in_memory(tiny_model, tmp_path):
    path = write_larger_model(tmp_path)
    done = run_limited(SCORE, path, tiny_model)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [scored.logprob for scored in LocalEngine(load_model(path, "float32", "cpu")[0], 256).score(REQUESTS)]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-4, rel=1e-6)
