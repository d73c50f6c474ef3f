"""The study's commands: a model of OPT-125m's shape on the real tasks, and its sweep on the embedded models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitsure import records
from bitsure.config import PROJECT
from tests.conftest import SHARED, needs_gptqmodel, needs_shared

TASKS = ["arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "truthfulqa_mc1", "truthfulqa_mc2"]  # no xstorycloze_en there


def run(folder: Path, *arguments: str) -> str:
    env = os.environ | {"BITSURE_STORE": str(folder / "store")}
    command = [sys.executable, str(PROJECT / "main.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@needs_shared
@needs_gptqmodel
def test_a_model_of_full_size_is_quantized_and_scored_on_real_tasks_in_one_command(tmp_path):
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)  # OPTConfig is OPT-125m by itself
    OPTForCausalLM(OPTConfig(vocab_size=50272, bos_token_id=50256, eos_token_id=50256)).half().save_pretrained(tmp_path / "opt")
    for file in (SHARED / "hub/models/gpt2-tokenizer").iterdir():
        shutil.copyfile(file, tmp_path / "opt" / file.name)
    calib = ["calib=text", f"calib.path={SHARED / 'text/wikitext2-raw-test.txt'}", "calib.nsamples=4", "calib.seqlen=128"]
    names, mirror = f"task.names=[{','.join([*TASKS, 'lambada_openai'])}]", f"paths.hub_mirror={SHARED / 'hub'}"
    small = ["task.limit=2", "metric.resamples=100", "hydra.run.dir=run"]
    out = run(tmp_path, "model=local", "model.path=opt", "quant=gptq4", *calib, names, mirror, *small)
    assert "lambada_openai accuracy" in out and "Verdict: undecided" in out
    proof = json.loads((tmp_path / "run" / "quantization.json").read_text())
    assert len(proof["modules_quantized"]) == 72 and 4.1 < proof["bits_per_weight"] < 4.3
    for name in ("baseline", "records"):
        rows, _ = records.read(tmp_path / "run" / f"{name}.parquet")
        assert {task: len(one) for task, one in records.by_task(rows).items()} == dict.fromkeys([*TASKS, "lambada_openai"], 2)


@needs_shared
def test_the_studys_sweep_runs_on_the_embedded_models(tmp_path):
    sweep = ["--config-dir", str(PROJECT / "sweeps"), "--config-name", "paper", "-m", "hydra.sweep.dir=sweep"]
    pocket = ["model=pocket-300k,pocket-300k-seed1", "quant=none,rtn4", "calib=pocket"]
    names, mirror = f"task.names=[{','.join(TASKS)}]", f"paths.hub_mirror={SHARED / 'hub'}"
    run(tmp_path, *sweep, *pocket, names, mirror, "task.limit=3", "metric.resamples=100", "tracking.mode=disabled")
    cells = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(cells) == 4
    for cell in cells:
        found = json.loads((cell / "metrics.json").read_text())
        assert set(TASKS) < set(found) and "paper_compat/ace" in found["arc_easy"]
        assert (cell / "comparison.json").is_file() == (not cell.name.endswith("none"))
