"""A data set that is a loading script, from a hub on the loopback: its conversion is read. Real processes, the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.hub import mirrors
from bitsure.hub.conversions import REF, Conversion, Conversions
from bitsure.hub.data_sets import data_sets_from
from bitsure.records.parquet import read_records
from tests.builders.loopback_hub import serve
from tests.builders.stopped_runs import MOST
from tests.builders.tokenizers import TEXT

REPO = "juletxara/xstory_cloze"
SCRIPT = "import pathlib\npathlib.Path(__file__, '../../was-run').resolve().touch()\n"


def stories(language: str, count: int) -> list[dict]:
    sentences = {f"input_sentence_{i}": f"{TEXT}{language} {i}." for i in range(1, 5)}
    return [
        {
            "story_id": str(i),
            **sentences,
            "sentence_quiz1": f"A cat {i}.",
            "sentence_quiz2": "A fox.",
            "answer_right_ending": i % 2 + 1,
        }
        for i in range(count)
    ]


def convert(folder, configuration: str, **splits: list[dict]):
    """Files as the hub's conversion has them, each split's in two."""
    for split, rows in splits.items():
        (folder / configuration / split).mkdir(parents=True)
        for part in range(2):
            pq.write_table(pa.Table.from_pylist(rows[part::2]), folder / configuration / split / f"000{part}.parquet")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model):
    """A hub with the study's story task as a script, converted in two languages, and one that is not; a way to run."""
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("xstory_cloze", "xnli"):
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(SCRIPT)
        (folder / name / "README.md").write_text("---\nlicense: mit\n---\nA set of stories.\n")
    for language in ("ar", "en"):
        convert(folder / "converted", language, eval=stories(language, 12), train=stories(language, 4))
    with serve() as served:
        served.add(REPO, folder / "xstory_cloze", kind="datasets")
        served.add(REPO, folder / "converted", kind="datasets", ref=REF)
        served.add("facebook/xnli", folder / "xnli", kind="datasets")

        def run(*command: str, **environment: str):
            place = {"HF_ENDPOINT": served.url, "HF_HOME": str(folder / "home"), "BITSURE_STORE": str(folder / "store")}
            env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | place | environment
            given = [sys.executable, *command, "model=local", f"model.path={tiny_model}", "calib=task"]
            return subprocess.run(given, cwd=folder, env=env, capture_output=True, text=True, timeout=MOST)

        yield served, folder, run
        assert not list(folder.rglob("was-run"))


PREFETCH = ["-c", "from bitsure.cli import main; main()", "prefetch"]
SMALL = [str(PROJECT / "main.py"), "quant=none", "metric.resamples=100", "tracking.mode=disabled"]


def told(folder, name: str) -> dict:
    return json.loads((folder / name / "provenance.json").read_text())["data"]


@pytest.mark.slow
def test_the_hubs_conversion_is_read_instead_of_the_script(world):
    served, folder, run = world
    origin = {REPO: {"commit": served.repositories["datasets", f"{REPO}@{REF}"].commit, "ref": REF}}
    # the second one is asked for when `datasets` has prepared the first: that does not stand in for it
    done = run(*SMALL, "task.names=[xstorycloze_en,xstorycloze_ar]", "hydra.run.dir=straight")
    assert done.returncode == 0, done.stderr + done.stdout
    assert told(folder, "straight") == {"xstorycloze_en": origin, "xstorycloze_ar": origin}
    log = (folder / "straight" / "main.log").read_text()
    loads = 2  # the training splits that calibrate, and the questions
    assert log.count(f"data set {REPO} is a script, which is not run") == loads and origin[REPO]["commit"] in log
    assert len(read_records(folder / "straight" / "records.parquet")[0]) == 24
    again = ["task.names=[xstorycloze_ar,xstorycloze_en]", "hydra.run.dir=again"]  # with no records, and no hub
    done = run(*SMALL, *again, HF_HUB_OFFLINE="1", BITSURE_STORE=str(folder / "store-again"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert told(folder, "again") == told(folder, "straight")


@pytest.mark.slow
def test_a_mirror_gets_the_conversion_and_serves_it_without_network(world):
    served, folder, run = world
    there, mirror = f"paths.hub_mirror={folder / 'mirror'}", folder / "mirror" / "datasets" / REPO
    for language in ("en", "ar"):
        done = run(*PREFETCH, there, f"task.names=[xstorycloze_{language}]", HF_HOME=str(folder / "elsewhere"))
        assert done.returncode == 0, done.stderr + done.stdout
        assert (mirror / language).is_dir() and (mirror / "ar").is_dir() == (language == "ar")
    assert not list(mirror.rglob("*.py"))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty"), "BITSURE_STORE": str(folder / "store3")}
    done = run(*SMALL, there, "task.names=[xstorycloze_en,xstorycloze_ar]", "hydra.run.dir=over-mirror", **offline)
    assert done.returncode == 0, done.stderr + done.stdout
    names = [f"en/{split}/000{i}.parquet" for split in ("eval", "train") for i in range(2)]
    assert told(folder, "over-mirror")["xstorycloze_en"][REPO] == {
        "commit": served.repositories["datasets", f"{REPO}@{REF}"].commit,
        "ref": REF,
        "sha256": mirrors.hashes(folder / "mirror" / "datasets" / REPO, names),
    }
    straight, over = (read_records(folder / name / "records.parquet")[0] for name in ("straight", "over-mirror"))
    assert over == straight


@pytest.mark.slow
def test_without_a_conversion_the_error_says_how_to_fill_a_mirror_by_hand(world):
    _, folder, run = world
    for command in (SMALL, [*PREFETCH, f"paths.hub_mirror={folder / 'none'}"]):
        done = run(*command, "task.names=[xnli_en]")
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        said = (
            "data set facebook/xnli, configuration en, is a script, xnli.py: scripts are not run, and the hub has no conversion"
        )
        assert said in done.stderr and "DIR/datasets/facebook/xnli by hand" in done.stderr
    card = done.stderr[done.stderr.index("---\n") : done.stderr.rindex("---") + 3]
    by_hand = folder / "by-hand" / "datasets" / "facebook" / "xnli"
    by_hand.mkdir(parents=True)
    (by_hand / "README.md").write_text(card.replace("split: …", "split: eval").replace("path: …", "path: rows.jsonl"))
    (by_hand / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stories("en", 3)))
    with data_sets_from(str(folder / "by-hand")) as origins:
        found = datasets.load_dataset("facebook/xnli", "en", cache_dir=str(folder / "cache"))
    assert found["eval"].to_list() == stories("en", 3)
    assert origins["facebook/xnli"]["unknown"] == "put into the mirror by hand"


def test_a_conversion_of_a_part_is_refused(served, tmp_path):
    convert(tmp_path, "big", **{"partial-train": stories("en", 4), "test": stories("en", 4)})
    served.add("org/set", tmp_path, kind="datasets", ref=REF)
    with pytest.raises(UserError, match=r"set\.py: .* the hub has converted only a part of it to parquet \(partial-train\)"):
        Conversions().find("org/set", "big")
    with pytest.raises(UserError, match="has no conversion of this configuration to parquet, only of big"):
        Conversions().find("org/set", "small")


def test_the_only_configuration_needs_no_name(served, tmp_path):
    convert(tmp_path, "plain_text", test=stories("en", 4))
    (tmp_path / "plain_text" / "test" / "index.duckdb").write_bytes(b"which the hub keeps there too")
    added = served.add("org/set", tmp_path, kind="datasets", ref=REF)
    files = ["plain_text/test/0000.parquet", "plain_text/test/0001.parquet"]
    assert Conversions().find("org/set", None) == Conversion("plain_text", added.commit, {"test": files})


def test_an_only_configuration_that_the_hub_calls_default_keeps_its_name(served, tmp_path):
    convert(tmp_path, "default", test=stories("en", 4))
    added = served.add("org/set", tmp_path, kind="datasets", ref=REF)
    files = ["default/test/0000.parquet", "default/test/0001.parquet"]
    assert Conversions().find("org/set", "plain_text") == Conversion("plain_text", added.commit, {"test": files})


@pytest.mark.parametrize(("first", "second"), [("en", "fr"), ("fr", "en")])
def test_an_only_conversion_does_not_stand_for_two_configurations(served, tmp_path, caplog, first, second):
    convert(tmp_path, "default", test=stories("en", 4))
    added = served.add("org/languages", tmp_path, kind="datasets", ref=REF)
    for _ in range(2):  # each load of tasks begins anew
        one_load = Conversions()
        found = one_load.find("org/languages", first)
        assert found.origin == {"commit": added.commit, "ref": REF, "configuration": "default"}
        assert one_load.find("org/languages", first) == found
        assert "configuration" not in one_load.find("org/languages", None).origin
        with pytest.raises(UserError, match=rf"configuration {second}, .* default, which stands for configuration {first}"):
            one_load.find("org/languages", second)
    assert caplog.text.count(f"org/languages: the configuration default of its conversion is read for {first}") == 2
    assert Conversions().find("org/languages", second).configuration == second


def test_a_card_does_not_name_the_same_files_for_two_configurations(tmp_path):
    splits = {"test": ["default/test/0000.parquet"]}
    Conversion("en", "c" * 40, splits).describe("org/set", tmp_path)
    said = (tmp_path / "README.md").read_text()
    with pytest.raises(UserError, match=r"configuration fr, .* stands for configuration en already"):
        Conversion("fr", "c" * 40, splits).describe("org/set", tmp_path)
    assert (tmp_path / "README.md").read_text() == said


def test_a_card_is_there_whole_however_its_writing_ends(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nText.\n")

    def killed(path, data):
        path.write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.repocard.metadata_save", killed)
    with pytest.raises(KeyboardInterrupt):
        Conversion("en", "c" * 40, {"eval": ["en/eval/0000.parquet"]}).describe("org/set", tmp_path)
    assert (tmp_path / "README.md").read_text() == "---\nlicense: mit\n---\nText.\n"


def test_a_card_keeps_what_it_says_of_others(tmp_path):
    card = "---\nlicense: mit\nconfigs:\n- config_name: mine\n  data_files: mine.jsonl\n---\nText.\n"
    (tmp_path / "README.md").write_text(card)
    for _ in range(2):
        Conversion("en", "c" * 40, {"eval": ["en/eval/0000.parquet"]}).describe("org/set", tmp_path)
    added = "- config_name: en\n  data_files:\n  - split: eval\n    path:\n    - en/eval/0000.parquet\n"
    assert (tmp_path / "README.md").read_text() == card.replace("mine.jsonl\n", f"mine.jsonl\n{added}")
