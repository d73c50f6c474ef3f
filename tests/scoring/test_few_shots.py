"""Few-shot prompts are the same for all models of a run, in whatever order, process and cell they are scored."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.records.parquet import read_prompts, read_records
from bitsure.run import pipeline
from tests.builders.composing import composed
from tests.builders.tokenizers import CHAT_TEMPLATE

pytestmark = pytest.mark.usefixtures("blank_pictures")

FOUR = "task.names=[tiny_pets,tiny_taught,tiny_last,tiny_pages]"


@pytest.fixture(scope="module")
def given(tiny_model, own_tasks):
    return [
        "model=local",
        f"model.path={tiny_model}",
        "quant=rtn3",
        f"task.include_path={own_tasks}",
        "task.names=[tiny_pets]",
        "task.num_fewshot=2",
        "task.limit=8",
        "metric.resamples=100",
        "tracking.mode=disabled",
    ]


def run(out: Path, *overrides: str) -> Path:
    """Run one cell with the store beside its directory, unless another is given."""
    store = [] if any("paths.store" in override for override in overrides) else [f"paths.store={out.parent / 'store'}"]
    pipeline.run(composed(*overrides, *store), out)
    return out


def identities(file: Path) -> list[tuple]:
    """Return what identifies the rows of a records file, in their order."""
    columns = ("task", "doc_id", "doc_hash", "prompt_hash", "target_hash")
    return list(zip(*(read_records(file)[0][name].to_pylist() for name in columns), strict=True))


def check_paired(out: Path) -> None:
    """Check that both models of a run saw the same prompts."""
    assert identities(out / "records.parquet") == identities(out / "baseline.parquet")
    assert all(entry for entry in json.loads((out / "comparison.json").read_text()).values())


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory) -> Path:
    """A finished run of all kinds of tasks."""
    return run(tmp_path_factory.mktemp("whole") / "run", *given, FOUR)


def test_both_models_of_a_run_see_the_same_examples_on_every_task(given, whole, tmp_path):
    out = whole
    check_paired(out)
    prompts = read_prompts(out / "prompts.parquet")
    assert {task for task, _ in prompts} == {"tiny_pets", "tiny_taught", "tiny_last", "tiny_pages"}
    assert all(prompt.count("I saw a") == 3 for (task, _), prompt in prompts.items() if task in ("tiny_pets", "tiny_last"))
    assert all("Lesson" in prompt for (task, _), prompt in prompts.items() if task == "tiny_taught")
    again = run(tmp_path / "again", *given, FOUR, f"paths.store={whole.parent / 'store'}")
    for name in ("records.parquet", "baseline.parquet", "metrics.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.slow
def test_every_noise_control_sees_them_too(given, tmp_path):
    out = run(tmp_path / "run", *given, "task.limit=4", "control.seeds=19")
    check_paired(out)
    for noise in sorted((out / "noise_control").glob("*.parquet")):
        assert identities(noise) == identities(out / "baseline.parquet"), noise.name


def test_examples_are_turns_for_both_models_with_a_chat_template(given, tiny_model, tmp_path):
    from transformers import AutoTokenizer

    chat = shutil.copytree(tiny_model, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(chat)
    out = run(tmp_path / "run", *given, f"model.path={chat}", "task.chat_template=true")
    check_paired(out)
    assert all(prompt.count("<user>") == 3 for prompt in read_prompts(out / "prompts.parquet").values())


def test_a_run_that_stopped_between_its_models_ends_as_one_that_did_not(given, whole, tmp_path, monkeypatch):
    from bitsure.scoring import harness

    evaluate, calls = harness.evaluate_tasks, []

    def stop_amid_the_second_model(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(harness, "evaluate_tasks", stop_amid_the_second_model)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", *given, FOUR)
    out = run(tmp_path / "run", *given, FOUR)
    assert len(calls) == 9  # four tasks of two models, one of which was stopped
    check_paired(out)
    for name in ("records.parquet", "baseline.parquet", "metrics.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def poison(store: Store, entry: Path, source: Path) -> None:
    """Put the files of another entry under an entry's key, as if they had been made from what its key names."""
    made_from = json.loads((entry / "manifest.json").read_text())["made_from"]
    shutil.rmtree(entry)
    with store.create("records", made_from) as unfinished:
        for file in source.iterdir():
            if file.name != "manifest.json":
                shutil.copy(file, unfinished)
    assert store.find("records", made_from, to_read=True) == entry


def entries(store: Path, quantized: bool) -> list[Path]:
    manifests = {path: json.loads((path / "manifest.json").read_text()) for path in (store / "records").glob("[!.]*")}
    return [path for path, content in manifests.items() if bool(content["made_from"]["weights"]) == quantized]


@pytest.fixture(scope="module")
def of_two_seeds(given, tmp_path_factory) -> tuple[Path, Path]:
    """Two runs that draw other examples, each beside its store."""
    first, second = (tmp_path_factory.mktemp(name) / "run" for name in ("first", "second"))
    return run(first, *given), run(second, *given, "task.seed=7")


@pytest.mark.parametrize("quantized", [False, True])
def test_records_of_other_prompts_than_their_key_names_are_made_again(given, of_two_seeds, tmp_path, caplog, quantized):
    first, second = of_two_seeds
    shutil.copytree(first.parent / "store", tmp_path / "store")
    [right] = entries(tmp_path / "store", quantized)
    [other] = entries(second.parent / "store", quantized)
    assert identities(right / "records.parquet") != identities(other / "records.parquet")
    poison(Store(tmp_path / "store"), right, other)
    with caplog.at_level(logging.WARNING):
        out = run(tmp_path / "out", *given)
    assert "are of other prompts than their key names: they are made again" in caplog.text
    check_paired(out)
    for name in ("records.parquet", "baseline.parquet", "metrics.json"):
        assert (out / name).read_bytes() == (first / name).read_bytes(), name


def test_prompts_that_changed_under_their_key_are_noticed_when_the_next_model_is_scored(
    given, own_tasks, tmp_path, caplog, monkeypatch
):
    """The key of a task's records names the files that its Python code reads, and not all that it may read."""
    folder = shutil.copytree(own_tasks, tmp_path / "tasks")
    (folder / "utils.py").write_text("import os\ndef text(doc): return os.environ['WORD'] + doc['q']\n")
    yaml = (folder / "tiny_pets.yaml").read_text().replace("'{{q}}'", "!function utils.text")
    (folder / "tiny_pets.yaml").write_text(yaml)
    given = [*given, f"task.include_path={folder}", "task.trust=true"]
    monkeypatch.setenv("WORD", "Once ")
    run(tmp_path / "first", *given, "task.num_fewshot=0")
    monkeypatch.setenv("WORD", "Twice ")
    with caplog.at_level(logging.WARNING):
        out = run(tmp_path / "second", *given, "task.num_fewshot=0", "quant=rtn4")
    assert "task tiny_pets: its prompts are not those of earlier records, which are made again" in caplog.text
    check_paired(out)
    assert all(prompt.startswith("Twice") for prompt in read_prompts(out / "prompts.parquet").values())


def test_what_a_task_draws_from_the_common_generators_is_the_same_for_both_models(given, own_tasks, tmp_path):
    folder = shutil.copytree(own_tasks, tmp_path / "tasks")
    draws = "{random.randint(0, 999)} {np.random.randint(999)}"
    (folder / "utils.py").write_text(f"import random\nimport numpy as np\ndef text(doc): return f\"{draws} {{doc['q']}}\"\n")
    yaml = (folder / "tiny_pets.yaml").read_text().replace("'{{q}}'", "!function utils.text")
    (folder / "tiny_pets.yaml").write_text(yaml)
    check_paired(run(tmp_path / "run", *given, f"task.include_path={folder}", "task.trust=true", "task.num_fewshot=0"))


def test_a_task_that_never_asks_the_same_twice_is_refused(given, own_tasks, tmp_path):
    folder = shutil.copytree(own_tasks, tmp_path / "tasks")
    (folder / "utils.py").write_text("import uuid\ndef text(doc): return f\"{uuid.uuid4()} {doc['q']}\"\n")
    yaml = (folder / "tiny_pets.yaml").read_text().replace("'{{q}}'", "!function utils.text")
    (folder / "tiny_pets.yaml").write_text(yaml)
    with pytest.raises(UserError, match=r"task\.names: tiny_pets has other prompts each time that they are made"):
        run(tmp_path / "run", *given, f"task.include_path={folder}", "task.trust=true", "task.num_fewshot=0")


def test_records_without_examples_keep_their_keys(given, tmp_path):
    out = run(tmp_path / "run", *given, "task.num_fewshot=0", "quant=none")
    made_from = json.loads(pq.read_schema(out / "records.parquet").metadata[b"bitsure"])["tiny_pets"]
    assert "few_shots" not in made_from and "exclude_question" not in made_from
    out = run(tmp_path / "examples", *given, "quant=none")
    made_from = json.loads(pq.read_schema(out / "records.parquet").metadata[b"bitsure"])["tiny_pets"]
    assert made_from["few_shots"]["exclude_question"] is True


@pytest.mark.slow
def test_a_sweep_over_the_number_of_examples(given, tmp_path):
    import subprocess
    import sys

    from bitsure.config.paths import PROJECT

    given = [override for override in given if not override.startswith("task.num_fewshot")]
    swept = ["task.num_fewshot=0,2", "quant=rtn3,rtn4", f"paths.store={tmp_path / 'store'}", "hydra.sweep.dir=sweep"]
    command = [sys.executable, str(PROJECT / "main.py"), "-m", *given, FOUR, *swept]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = sorted((tmp_path / "sweep").rglob("records.parquet"))
    assert len(cells) == 4
    for cell in cells:
        check_paired(cell.parent)
    assert len({tuple(identities(cell.parent / "baseline.parquet")) for cell in cells}) == 2
