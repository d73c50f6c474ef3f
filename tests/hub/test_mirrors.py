"""What a mirror says of the commits of what it holds, and what it cannot say."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.schema import ModelSettings
from bitsure.hub import mirrors
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.fetching import fetch_dataset_files, fetch_model
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.models.locate import locate_model


@pytest.fixture
def mirrored(tiny_model, tmp_path):
    """A model in a mirror, copied by hand."""
    return shutil.copytree(tiny_model, tmp_path / "models" / "org" / "tiny")


def test_a_fetched_model_is_of_its_commit_while_it_is_as_fetched(mirrored, tmp_path):
    mirrors.note_model(mirrored, "v1", "c" * 40)
    find = lambda revision: mirrors.find_model("org/tiny", revision, str(tmp_path))  # noqa: E731
    assert find("v1") == find("c" * 40) == LocalFiles(mirrored, "c" * 40)
    (mirrored / "README.md").write_text("Which no model is loaded from.")
    assert find("v1").commit == "c" * 40
    (mirrored / "config.json").write_text((mirrored / "config.json").read_text() + " ")
    assert find("v1") == LocalFiles(mirrored, None)


def test_other_weights_of_the_same_size_are_not_of_the_commit(mirrored, tmp_path):
    mirrors.note_model(mirrored, "main", "c" * 40)
    locate = lambda: locate_model(ModelSettings(repo="org/tiny"), str(tmp_path), Store(tmp_path / "store"))  # noqa: E731
    assert locate().fingerprint == f"org/tiny@{'c' * 40}"
    weights = bytearray((mirrored / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (mirrored / "model.safetensors").write_bytes(weights)
    assert locate().revision is None and "org/tiny@" not in locate().fingerprint


@pytest.mark.parametrize("text", ["", '{"revision": "main"', '{"revision": "main"}', "[]", '{"files": 1}', "[" * 100_000])
def test_damaged_notes_are_named_with_the_way_out(mirrored, tmp_path, text):
    (mirrored / mirrors.MODEL_NOTE).write_text(text)
    with pytest.raises(UserError, match=r"tiny/prefetched\.json is damaged: .* Remove it, .* `make prefetch` again"):
        mirrors.find_model("org/tiny", "main", str(tmp_path))
    (mirrored / mirrors.DATA_NOTE).write_text(text)
    with pytest.raises(UserError, match=r"tiny/\.prefetched\.json is damaged"):
        mirrors.origin(mirrored, {})


def test_two_that_fill_one_repository_wait_for_each_other(published, served, tiny_model, tmp_path):
    (tmp_path / "set").mkdir()
    files = [f"{i}.jsonl" for i in range(8)]
    for file in files:
        (tmp_path / "set" / file).write_text("{}")
    served.add("org/set", tmp_path / "set", kind="datasets")
    mirror = tmp_path / "mirror"
    model = lambda i: fetch_model(WantedModel("org/tiny"), mirror)  # noqa: E731
    data = lambda i: fetch_dataset_files("org/set", files[i : i + 5], mirror)  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        done = [*pool.map(model, range(2)), *pool.map(data, range(4))]
    assert done[0] == done[1] == LocalFiles(mirror / "models" / "org" / "tiny", published.commit)
    folder = mirror / "datasets" / "org" / "set"
    assert mirrors.origin(folder, mirrors.hashes(folder, files))["commit"] is not None


@pytest.mark.parametrize("revision", ["main", "v2", "d" * 40])
def test_another_revision_than_the_one_that_was_fetched_is_refused(mirrored, tmp_path, revision):
    mirrors.note_model(mirrored, "v1", "c" * 40)
    said = rf"holds another revision than {revision}: it was fetched at v1, commit {'c' * 40}\. .* paths\.hub_mirror"
    with pytest.raises(UserError, match=said):
        locate_model(ModelSettings(repo="org/tiny", revision=revision), str(tmp_path))
    with pytest.raises(UserError, match=said):
        fetch_model(WantedModel("org/tiny", revision), tmp_path)


@pytest.mark.parametrize(("revision", "said"), [("main", 0), ("v1", 1)])
def test_a_model_put_there_by_hand_is_taken_and_a_revision_that_cannot_be_checked_is_said(
    mirrored, tmp_path, revision, said, caplog
):
    source = locate_model(ModelSettings(repo="org/tiny", revision=revision), str(tmp_path))
    assert source.path == mirrored and source.revision is None
    assert caplog.text.count(f"whether it is of revision {revision} is unknown") == said


def test_files_of_a_data_set_are_of_the_commit_they_were_fetched_at(tmp_path):
    folder = tmp_path / "datasets" / "org" / "set"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / name).write_text(name)
    origin = lambda names: mirrors.origin(folder, mirrors.hashes(folder, names))  # noqa: E731
    assert (origin("ab")["commit"], origin("ab")["unknown"]) == (None, "put into the mirror by hand")
    mirrors.note_data(folder, "1" * 40, {name: folder / name for name in "ab"})
    mirrors.note_data(folder, "2" * 40, {"c": folder / "c"})
    assert origin("ab") == {"commit": "1" * 40, "sha256": mirrors.hashes(folder, "ab")}
    assert origin("c")["commit"] == "2" * 40
    assert origin("ac")["unknown"] == f"its files are of several commits: {'1' * 40}, {'2' * 40}"
    (folder / "b").write_text("B")
    assert origin("ab")["unknown"] == "some of its files were put into the mirror, or changed there, by hand"
    assert mirrors.hashes(folder, ["none"]) == {"none": None}


def test_what_is_noted_of_a_data_set_is_not_read_as_data(tmp_path):
    import datasets

    folder = tmp_path / "mirror" / "datasets" / "org" / "set"  # without a card, so that `datasets` looks for data by itself
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps({"q": "one"}))
    mirrors.note_data(folder, "1" * 40, {"a.json": folder / "a.json"})
    with data_sets_from(str(tmp_path / "mirror")) as origins:
        found = datasets.load_dataset("org/set", cache_dir=str(tmp_path / "cache"))
    assert found["train"].to_list() == [{"q": "one"}] and list(origins["org/set"]["sha256"]) == ["a.json"]
    assert origins["org/set"]["commit"] == "1" * 40
