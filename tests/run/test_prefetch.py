"""From a hub on the loopback to a report: straight, and over a mirror without any network, with the real client."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.config.sweep_overrides import expand
from bitsure.hub import mirrors
from bitsure.hub.fetching import fetch_model
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.records.parquet import read_records
from bitsure.run import prefetch
from tests.builders.loopback_hub import serve
from tests.builders.stopped_runs import MOST
from tests.builders.tokenizers import TEXT

TASK = """
task: quiz
dataset_path: org/quiz
dataset_name: animals
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: options
doc_to_target: gold
metric_list: [{metric: acc}]
"""
CARD = """---
configs:
- config_name: animals
  data_files: [{split: test, path: animals/test-*.parquet}]
- config_name: plants
  data_files: [{split: test, path: plants/test-*.parquet}]
---
"""


# what the client and `datasets` read from HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when they are imported
VARIABLES = """
import datasets.config
from huggingface_hub import constants
constants.ENDPOINT = datasets.config.HF_ENDPOINT = {url!r}
constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.ENDPOINT + "/{{repo_id}}/resolve/{{revision}}/{{filename}}"
datasets.config.HUB_DATASETS_URL = constants.ENDPOINT + "/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE = {home!r} + "/hub", {home!r} + "/datasets"
constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = {offline}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model):
    """A hub with an OPT of .bin weights alone, a calibration text and a data set; a task that wants them; a way to run."""
    folder = tmp_path_factory.mktemp("hub")
    opt = shutil.copytree(tiny_model, folder / "opt")
    from bitsure.models.load import load_model

    weights = load_model(tiny_model, "float32")[0].half().state_dict()
    (opt / "model.safetensors").unlink()
    torch.save(weights, opt / "pytorch_model.bin")
    (folder / "c4" / "en").mkdir(parents=True)
    with gzip.open(folder / "c4" / "en" / "first.json.gz", "wt") as file:
        file.writelines(json.dumps({"text": f"{i} {TEXT}"}) + "\n" for i in range(200))
    for name in ("animals", "plants"):
        (folder / "quiz" / name).mkdir(parents=True)
        rows = [{"q": f"{TEXT} {i}: I saw a", "options": ["cat", "fox"], "gold": i % 2} for i in range(12)]
        for part in range(2):
            path = folder / "quiz" / name / f"test-0000{part}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(rows[part::2]), path)
    (folder / "quiz" / "README.md").write_text(CARD)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "quiz.yaml").write_text(TASK)
    settings = ["model=opt-125m", "model.repo=org/opt", "model.parameters=null", "model.context=1024", "task.names=[quiz]"]
    settings += [f"task.include_path={folder / 'tasks'}", "calib.repo=org/c4", "calib.file=en/first.json.gz"]

    with serve() as served:
        served.add("org/opt", opt)
        served.add("org/c4", folder / "c4", kind="datasets")
        served.add("org/quiz", folder / "quiz", kind="datasets")

        def run(*command: str, **environment: str):
            place = {"HF_ENDPOINT": served.url, "HF_HOME": str(folder / "home"), "BITSURE_STORE": str(folder / "store")}
            env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | place | environment
            given = [sys.executable, *command, *settings]
            return subprocess.run(given, cwd=folder, env=env, capture_output=True, text=True, timeout=MOST)

        yield served, folder, settings, run


PREFETCH = ["-c", "from bitsure.cli import main; main()", "prefetch"]
SMALL = ["quant=gptq4", "calib.nsamples=4", "calib.seqlen=32", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.fixture(scope="module")
def run_main(world, commands):
    """Return what runs main.py on the hub, or offline, with a home directory of the hub's client in the folder."""
    served, folder, settings, _ = world

    def run_main(*overrides: str, home: str = "home", offline: bool = False):
        before = VARIABLES.format(url=served.url, home=str(folder / home), offline=offline)
        store = {"BITSURE_STORE": str(folder / "store")}
        return commands.run(*overrides, *settings, cwd=folder, environment=store, before=before)

    return run_main


@pytest.fixture(scope="module")
def straight(world, run_main):
    """The directory of a run that read the hub."""
    done = run_main(*SMALL, "quant.backend=native", "hydra.run.dir=straight")
    assert done.returncode == 0, done.stderr + done.stdout
    return world[1] / "straight"


def test_a_run_reads_the_hub_and_then_its_cache(world, straight):
    served, *_ = world
    commit = served.repositories["models", "org/opt"].commit
    made_by = json.loads((straight / "provenance.json").read_text())
    assert made_by["model"]["revision"] == commit and made_by["model"]["full_dtype"] == "float16"
    assert made_by["model"]["revision_asked"] == "main" and made_by["model"]["revision_checked"]
    assert made_by["data"] == {"quiz": {"org/quiz": {"commit": served.repositories["datasets", "org/quiz"].commit}}}
    assert made_by["calib_data"] == {"commit": served.repositories["datasets", "org/c4"].commit}
    rows, made_from = read_records(straight / "records.parquet")
    assert len(rows) == 12 and made_from["quiz"]["model"] == f"org/opt@{commit}"
    assert "read by torch's weights-only loader" in (straight / "main.log").read_text()


@pytest.mark.slow
def test_a_mirror_serves_where_there_is_no_network(world, straight):
    served, folder, _, run = world
    served.breaks, served.busy = 1, 1
    done = run(*PREFETCH, f"paths.hub_mirror={folder / 'mirror'}", HF_HOME=str(folder / "elsewhere"))
    assert done.returncode == 0, done.stderr + done.stdout
    mirror = folder / "mirror"
    assert {str(f.relative_to(mirror)) for f in mirror.rglob("*") if f.is_file() and "org/opt" not in str(f)} == {
        ".locks/datasets/org/c4",
        ".locks/datasets/org/quiz",
        "datasets/org/c4/.prefetched.json",
        "datasets/org/c4/en/first.json.gz",
        "datasets/org/quiz/.prefetched.json",
        "datasets/org/quiz/README.md",
        "datasets/org/quiz/animals/test-00000-of-00002.parquet",
        "datasets/org/quiz/animals/test-00001-of-00002.parquet",
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty"), "BITSURE_STORE": str(folder / "store2")}
    there = f"paths.hub_mirror={mirror}"
    done = run(str(PROJECT / "main.py"), *SMALL, there, "quant=rtn4", "hydra.run.dir=over-mirror", **offline)
    assert done.returncode == 0, done.stderr + done.stdout
    made_by = json.loads((folder / "over-mirror" / "provenance.json").read_text())
    origin = made_by["data"]["quiz"]["org/quiz"]
    assert origin["commit"] == served.repositories["datasets", "org/quiz"].commit
    assert origin["sha256"] == mirrors.hashes(
        mirror / "datasets" / "org" / "quiz", [f"animals/test-0000{i}-of-00002.parquet" for i in (0, 1)]
    )
    assert made_by["calib_data"]["commit"] == served.repositories["datasets", "org/c4"].commit
    first, over = (read_records(run_dir / "baseline.parquet") for run_dir in (straight, folder / "over-mirror"))
    assert first[0] == over[0] and first[1]["quiz"]["model"] == over[1]["quiz"]["model"]
    served.asked.clear()
    again = run(*PREFETCH, there, HF_HOME=str(folder / "elsewhere"))
    assert again.returncode == 0 and not any("resolve" in path and path.endswith((".bin", ".gz")) for _, path in served.asked)


@pytest.mark.slow
def test_a_mirror_made_by_hand_says_what_cannot_be_checked(world):
    _, folder, _, run = world
    for kind, name in (("models", "opt"), ("datasets", "quiz")):
        shutil.copytree(folder / name, folder / "by-hand" / kind / "org" / name)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty"), "BITSURE_STORE": str(folder / "store3")}
    settings = [f"paths.hub_mirror={folder / 'by-hand'}", "model.revision=v1", "quant=none", "hydra.run.dir=hand-made"]
    done = run(str(PROJECT / "main.py"), *SMALL, *settings, **offline)
    assert done.returncode == 0, done.stderr + done.stdout
    made_by = json.loads((folder / "hand-made" / "provenance.json").read_text())
    model = {key: made_by["model"][key] for key in ("revision", "revision_asked", "revision_checked")}
    assert model == {"revision": None, "revision_asked": "v1", "revision_checked": False}
    said = "org/opt was copied by hand: whether it is of revision v1 is unknown"
    assert (folder / "hand-made" / "main.log").read_text().count(said) == 1
    assert made_by["data"]["quiz"]["org/quiz"]["unknown"] == "put into the mirror by hand"


def test_with_neither_network_nor_mirror_the_error_says_what_and_how(run_main):
    done = run_main(home="empty", offline=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "model org/opt at revision main is not available: the hub is not asked (HF_HUB_OFFLINE)" in done.stderr
    assert "make prefetch" in done.stderr and "DIR/models/org/opt" in done.stderr


def test_what_is_left_of_another_commits_broken_fetch_is_not_taken(served, published, tmp_path):
    fetch = lambda: fetch_model(WantedModel("org/tiny"), tmp_path / "mirror")  # noqa: E731
    (published.folder / "generation_config.json").write_text("{}")
    served.breaks = 1000
    with pytest.raises(UserError):
        fetch()
    begun = tmp_path / "mirror" / ".unfinished" / "models" / "org" / "tiny"
    assert (begun / published.commit / "generation_config.json").is_file() and not (tmp_path / "mirror" / "models").exists()
    served.breaks, published.commit = 0, "b" * 40
    (published.folder / "generation_config.json").unlink()
    found = fetch()
    assert found.commit == "b" * 40 and (found.path / "model.safetensors").is_file()
    assert not (found.path / "generation_config.json").exists() and not begun.exists()


def test_a_noise_control_of_a_checkpoint_of_others_has_that_fetched_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    fetched = []
    monkeypatch.setattr(
        "bitsure.hub.fetching.fetch_model", lambda model, *given: fetched.append(model.repo) or LocalFiles(tmp_path, None)
    )
    monkeypatch.setattr("bitsure.tasks.harness_tasks.load_tasks", lambda *given, fetch: {})
    noise = ["quant=noise", "quant@quant.like=prequantized", "quant.like.repo=org/quantized", "calib=random"]
    prefetch.prefetch_main(["model=opt-125m", *noise, f"paths.hub_mirror={tmp_path / 'mirror'}"])
    assert fetched == ["facebook/opt-125m", "org/quantized"]


def test_a_sweep_is_prefetched_cell_by_cell():
    given = ["model=opt-125m,opt-1.3b", "quant=none", "task.names=[boolq,piqa]"]
    assert expand(given) == [[f"model={one}", *given[1:]] for one in ("opt-125m", "opt-1.3b")]
    with pytest.raises(SystemExit, match=r"add paths\.hub_mirror=DIR"):
        prefetch.prefetch_main(["model=opt-125m"])
