from __future__ import annotations

import hashlib

import pytest

from bitsure.base.errors import UserError
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.dataset_calls import DatasetCall


@pytest.fixture
def loaded(monkeypatch):
    """What `datasets.load_dataset` is called with within a block of `data_sets_from`."""
    calls = []
    monkeypatch.setattr("datasets.load_dataset", lambda path, *args, **kwargs: calls.append((path, args, kwargs)))
    return calls


def test_a_repository_in_the_mirror_is_read_from_there(loaded, tmp_path):
    import datasets

    folder = tmp_path / "datasets" / "org" / "set"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nconfigs: [{config_name: main, data_files: a.jsonl}]\n---\n")
    (folder / "a.jsonl").write_text('{"q": 1}')
    before = datasets.load_dataset
    with data_sets_from(str(tmp_path)) as origins:
        datasets.load_dataset("org/set", "main", split="test")
        datasets.load_dataset("org/other", "main")
    assert datasets.load_dataset is before
    sha256 = hashlib.sha256(b'{"q": 1}').hexdigest()
    assert origins["org/set"] == {"commit": None, "unknown": "put into the mirror by hand", "sha256": {"a.jsonl": sha256}}
    assert origins["org/other"]["commit"] is None
    [(path, args, kwargs), other] = loaded
    assert (path, args, kwargs["split"]) == (str(folder), ("main",), "test") and other == ("org/other", ("main",), {})


def test_a_folder_of_this_machine_is_not_taken_for_a_data_set_of_the_mirror(loaded, tmp_path):
    import datasets

    own = tmp_path / "own"
    own.mkdir()
    with data_sets_from(str(tmp_path / "mirror")) as origins:
        datasets.load_dataset(str(own))
    assert origins == {} and loaded[0][0] == str(own)


@pytest.mark.parametrize("path, is_repository", [("org/set", True), ("xnli", True), ("json", False), (__file__, False)])
def test_a_repository_may_have_no_organization(path, is_repository):
    assert DatasetCall(path, (), {}).is_repository == is_repository


def test_ones_own_files_are_found_beside_their_yaml(loaded, tmp_path):
    import datasets

    with data_sets_from(None, str(tmp_path)):
        for files in ({"test": "a.jsonl"}, {"test": ["a.jsonl", "/b.jsonl"]}, "a.jsonl", "https://host/a.jsonl"):
            datasets.load_dataset("json", data_files=files)
    here = str(tmp_path / "a.jsonl")
    expected = [{"test": here}, {"test": [here, "/b.jsonl"]}, here, "https://host/a.jsonl"]
    assert [kwargs["data_files"] for _, _, kwargs in loaded] == expected


def test_what_cannot_be_had_says_what_and_how(monkeypatch, tmp_path):
    import datasets

    def refuse(*args, **kwargs):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with (
        pytest.raises(
            UserError,
            match=r"data set org/set is not available: the mirror .* ConnectionError: no route\n.*DIR/datasets/org/set",
        ),
        data_sets_from(str(tmp_path), None),
    ):
        datasets.load_dataset("org/set")


def test_a_configuration_that_the_mirror_lacks_is_named(tmp_path):
    import datasets

    folder = tmp_path / "datasets" / "org" / "set"
    (folder / "a").mkdir(parents=True)
    (folder / "README.md").write_text("---\nconfigs: [{config_name: a, data_files: a/*.jsonl}]\n---\n")
    (folder / "a" / "x.jsonl").write_text('{"q": 1}')
    with (
        pytest.raises(
            UserError, match=r"org/set, configuration b cannot be read from the mirror's .*'b' not found.*\n.*prefetch"
        ),
        data_sets_from(str(tmp_path), None),
    ):
        datasets.load_dataset("org/set", "b")


def test_a_file_of_the_mirror_that_cannot_be_read_is_named(loaded, tmp_path, monkeypatch):
    import datasets

    folder = tmp_path / "datasets" / "org" / "set"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"q": 1}')

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bitsure.hub.mirrors.hash_file", denied)
    with (
        pytest.raises(UserError, match=r"org/set cannot be read from the mirror's .*Permission denied: .*a\.jsonl"),
        data_sets_from(str(tmp_path), None),
    ):
        datasets.load_dataset("org/set")
