from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from bitsure.store import Store, hash_json


def make(store: Store, content: str = "x") -> None:
    with store.create("weights", {"a": 1}) as directory:
        (directory / "file").write_text(content)


def test_an_entry_is_found_by_what_made_it(tmp_path):
    store = Store(tmp_path)
    assert store.find("weights", {"a": 1}) is None
    make(store)
    assert (store.find("weights", {"a": 1}) / "file").read_text() == "x"
    assert store.find("weights", {"a": 2}) is None and store.find("records", {"a": 1}) is None


def test_keys_do_not_depend_on_the_order_of_a_dict():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})


def test_an_exception_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.create("weights", {"a": 1}) as directory:
        (directory / "file").write_text("half")
        raise RuntimeError
    assert store.find("weights", {"a": 1}) is None
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("damage", ["edit", "cut", "remove", "manifest"])
def test_damage_is_noticed_and_the_entry_made_again(tmp_path, damage):
    store = Store(tmp_path)
    make(store, "content")
    file = store.path("weights", {"a": 1}) / "file"
    match damage:
        case "edit":
            file.write_text("CONTENT")
        case "cut":
            file.write_text("con")
        case "remove":
            file.unlink()
        case "manifest":
            (file.parent / "manifest.json").write_text("{")
    assert store.find("weights", {"a": 1}) is None
    make(store, "again")
    assert (store.find("weights", {"a": 1}) / "file").read_text() == "again"


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_makes_is_kept(tmp_path):
    store = Store(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "weights" / f".unfinished-{socket.gethostname()}-{dead.pid}-abc"
    kept = tmp_path / "weights" / f".unfinished-{socket.gethostname()}-{os.getpid()}-abc"
    left.mkdir(parents=True)
    kept.mkdir()
    make(store)
    assert not left.exists() and kept.exists()


def test_two_makers_of_the_same_entry_end_with_one(tmp_path):
    store = Store(tmp_path)
    with store.create("weights", {"a": 1}) as first:
        (first / "file").write_text("x")
        make(store)
    assert store.find("weights", {"a": 1})
    assert len(list((tmp_path / "weights").iterdir())) == 1
