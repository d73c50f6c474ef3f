"""The study's commands: its sweep on an embedded model and on one of OPT-125m's shape, asked the real tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bitsure.config.paths import CONF, PROJECT
from bitsure.records.parquet import read_records
from bitsure.records.record import by_task
from bitsure.sweep.report.cell_results import FULL_PRECISION
from bitsure.sweep.report.sweep_page import PAPER
from bitsure.sweep.report.sweep_statistics import STUDY
from tests.builders.marks import SHARED, needs_gptqmodel, needs_shared
from tests.builders.stopped_runs import MOST

TASKS = yaml.safe_load((CONF / "task" / "paper.yaml").read_text())["names"]
SWEEP = ["--config-dir", str(PROJECT / "sweeps"), "--config-name", "paper", "-m", "hydra.sweep.dir=sweep"]
STORY = {f"input_sentence_{i}": f"Ann went to the sea for the {i}. time." for i in range(1, 5)}


def run(folder: Path, *arguments: str, fails: bool = False) -> str:
    env = os.environ | {"BITSURE_STORE": str(folder / "store")}
    command = [sys.executable, str(PROJECT / "main.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=2 * MOST)
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def hub(tmp_path):
    """A mirror with the real data sets, and of XStoryCloze, which is not among them, rows of its columns."""
    shutil.copytree(SHARED / "hub" / "datasets", tmp_path / "hub" / "datasets")
    stories = tmp_path / "hub" / "datasets" / "juletxara" / "xstory_cloze"
    (stories / "en").mkdir(parents=True)
    files = [f"{{split: {split}, path: en/{split}-*.parquet}}" for split in ("train", "eval")]
    (stories / "README.md").write_text(f"---\nconfigs: [{{config_name: en, data_files: [{', '.join(files)}]}}]\n---\n")
    ends = {"sentence_quiz1": "She swam.", "sentence_quiz2": "The moon was made of cheese that day."}
    rows = [{"story_id": str(i), **STORY, **ends, "answer_right_ending": 1 + i % 2} for i in range(6)]
    for split in ("train", "eval"):
        pq.write_table(pa.Table.from_pylist(rows), stories / "en" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "hub"


@pytest.fixture
def opt(hub):
    """A random model of OPT-125m's shape in the mirror, as conf/model's opt-125m finds it there."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)  # OPTConfig is OPT-125m by itself
    path = hub / "models" / "facebook" / "opt-125m"
    OPTForCausalLM(OPTConfig(vocab_size=50272, bos_token_id=50256, eos_token_id=50256)).half().save_pretrained(path)
    for file in (SHARED / "hub/models/gpt2-tokenizer").iterdir():
        shutil.copyfile(file, path / file.name)
    return path


@pytest.mark.slow
@needs_shared
@needs_gptqmodel
def test_the_studys_sweep_gives_one_table_of_an_embedded_and_a_full_size_model(tmp_path, hub, opt):
    small = ["task.limit=2", "metric.resamples=100", f"paths.hub_mirror={hub}", "tracking.mode=disabled"]
    small += ["calib=text", f"calib.path={SHARED / 'text/wikitext2-raw-test.txt'}", "calib.nsamples=4", "calib.seqlen=128"]
    command = [*SWEEP, "model=pocket-300k,opt-125m", "quant=none,gptq4", *small]
    run(tmp_path, *command)
    sweep = tmp_path / "sweep"

    found = {}
    for row in pq.read_table(sweep / "sweep.parquet").to_pylist():
        found[row["model"], row["quantizer"], row["task"], row["metric"]] = row
    models, quantizers = ("pocket-300k", "opt-125m"), (FULL_PRECISION, "gptq4")
    wanted = {(m, q, task, metric) for m in models for q in quantizers for task in TASKS for metric in {**STUDY, **PAPER}}
    assert wanted <= found.keys()
    for model, _, task, metric in wanted:
        full, quantized = (found[model, quantizer, task, metric] for quantizer in quantizers)
        assert full["value"] is not None and full["n"] == quantized["n"] > 0
        assert quantized["baseline"] == pytest.approx(full["value"])
    assert found["opt-125m", "gptq4", "arc_easy", "accuracy"]["parameters"] == 125_239_296
    assert 4.1 < found["opt-125m", "gptq4", "arc_easy", "accuracy"]["bits_per_weight"] < 4.3

    page = (sweep / "sweep.html").read_text()
    for metrics in (STUDY, PAPER):
        [table] = [one for one in page.split("<table")[1:] if all(f">{said}<" in one for said in metrics.values())]
        assert all(table.count(f">{model}<") == 1 for model in models)
        assert all(table.count(f">{task}<") == 2 for task in TASKS)

    [cell] = sweep.glob("*opt-125m-gptq4")
    assert len(json.loads((cell / "quantization.json").read_text())["modules_quantized"]) == 72
    rows, _ = read_records(cell / "records.parquet")
    assert {task: len(one) for task, one in by_task(rows).items()} == dict.fromkeys(TASKS, 2)
    made_by = json.loads((cell / "provenance.json").read_text())
    assert made_by["data"]["xstorycloze_en"]["juletxara/xstory_cloze"]["unknown"] == "put into the mirror by hand"

    said = run(tmp_path, "model=opt-125m", "quant=gptq4", "task.names=[lambada_openai]", *small)
    assert "lambada_openai accuracy" in said and "Verdict: undecided" in said
    assert run(tmp_path, *command).count(": done before") == 4
    config = opt / "config.json"
    config.write_text(config.read_text() + "\n")
    said = run(tmp_path, *command, fails=True)
    assert f"no cell was started:\n- 2 cells (3, 4): done, but the model in {opt} changed since" in said


@pytest.mark.slow
@needs_shared
def test_the_studys_sweep_runs_on_an_embedded_model_without_gptqmodel(tmp_path, hub):
    chosen = ["model=pocket-300k", "quant=none,rtn4", "calib=pocket", f"paths.hub_mirror={hub}"]
    run(tmp_path, *SWEEP, *chosen, "task.limit=3", "metric.resamples=100", "tracking.mode=disabled")
    cells = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(cells) == 2
    for cell in cells:
        found = json.loads((cell / "metrics.json").read_text())
        assert set(TASKS) < set(found) and "paper_compat/ace" in found["arc_easy"]
        assert (cell / "comparison.json").is_file() == (not cell.name.endswith("none"))
