from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import filelock
import pytest

from bitsure.base.errors import DiskError, UserError
from bitsure.base.files import hash_json
from bitsure.base.store import Store, locked
from tests.builders.stopped_runs import MOST, wait_until


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


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc is Linux's own")
def test_a_place_where_no_folder_can_be_made_is_a_sentence():
    said = r"/proc/nostore cannot be made there\. Choose another place: paths\.store=DIR"
    with pytest.raises(DiskError, match=said), locked(Path("/proc/nostore/lock"), "an entry"):
        pass


def test_an_exception_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.create("weights", {"a": 1}) as directory:
        (directory / "file").write_text("half")
        raise RuntimeError
    assert store.find("weights", {"a": 1}) is None
    assert list((tmp_path / "weights").iterdir()) == []


def test_turned_bits_are_noticed_when_they_are_read_and_looking_up_reads_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    make(store, "content")
    file = store.path("weights", {"a": 1}) / "file"
    status = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.find("weights", {"a": 1}, to_read=True) is None
    monkeypatch.setattr("bitsure.base.store.hash_file", lambda path: pytest.fail("a look-up reads a file"))
    assert store.find("weights", {"a": 1})


def test_a_copied_store_is_believed_once_it_is_hashed(tmp_path):
    make(Store(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy)
    assert Store(tmp_path / "b").find("weights", {"a": 1})


def test_a_look_up_lists_no_directory_and_hashes_no_file(tmp_path, monkeypatch):
    """Its time does not depend on the number of entries, nor on their size."""
    store = Store(tmp_path)
    with store.create("records", {"number": 1}) as entry:
        (entry / "records.parquet").write_bytes(bytes(100))

    def refuse(*args: object) -> None:
        raise AssertionError("a look-up reads its own entry's manifest alone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        patch.setattr(os, "listdir", refuse)
        patch.setattr("bitsure.base.store.hash_file", refuse)
        found, missing = store.find("records", {"number": 1}), store.find("records", {"number": 2})
    assert found == store.path("records", {"number": 1}) and missing is None


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    make(Store(tmp_path))
    assert (tmp_path / "version").read_text() == "1\n"
    (tmp_path / "version").write_text("2\n")
    with pytest.raises(
        UserError, match=r"newer bitsure \(its layout is 2, this one knows 1\)\. Update bitsure, or .*paths\.store"
    ):
        Store(tmp_path)
    (tmp_path / "version").write_text("what?")
    with pytest.raises(UserError, match=r"is .* a store"):
        Store(tmp_path)


WAITS = """
import sys, time
from bitsure.base.store import Store
store = Store(sys.argv[1])
with store.lock("weights", {"a": 1}):
    if store.find("weights", {"a": 1}) is None:
        with store.create("weights", {"a": 1}) as entry:
            print("making", flush=True)
            time.sleep(float(sys.argv[2]))
            (entry / "file").write_text(sys.argv[3])
"""


def process(store, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WAITS, store, *arguments], stdout=subprocess.PIPE, text=True)


def test_two_processes_that_want_the_same_wait_for_one_of_them(tmp_path):
    first = process(tmp_path, "0.5", "first")
    assert first.stdout.readline() == "making\n"
    second = process(tmp_path, "0", "second")
    assert second.communicate(timeout=MOST)[0] == "" and first.wait(timeout=MOST) == 0
    assert (Store(tmp_path).find("weights", {"a": 1}) / "file").read_text() == "first"


def test_an_entry_is_filled_by_one_of_those_who_want_it_at_once(tmp_path):
    filled, places = [], []

    def fill(entry: Path) -> None:
        filled.append(entry)
        time.sleep(0.2)
        (entry / "a.txt").write_text("a")

    def want() -> None:
        places.append(Store(tmp_path).ensure("parameters", {"a": 1}, fill))

    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1 and len(places) == 3 and all((place / "a.txt").read_text() == "a" for place in places)


def test_a_lock_goes_with_its_owner_and_waiting_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("bitsure.base.store.PATIENCE", 0.1)
    owner = process(tmp_path, "600", "never")
    assert owner.stdout.readline() == "making\n"

    def kill_once_it_is_waited_for() -> None:
        try:
            wait_until(lambda: "waiting for another process that makes" in caplog.text, "waiting is said")
        finally:
            owner.kill()

    killing = threading.Thread(target=kill_once_it_is_waited_for)
    killing.start()
    with Store(tmp_path).lock("weights", {"a": 1}):
        assert owner.wait(timeout=MOST) == -signal.SIGKILL
    killing.join()
    owner.communicate()
    with Store(tmp_path).lock("weights", {"a": 2}):
        pass


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
    dead, living = process(tmp_path, "600", "never"), None
    assert dead.stdout.readline() == "making\n"
    try:
        [left] = (tmp_path / "weights").glob(".unfinished-*")
        dead.kill()
        dead.communicate(timeout=MOST)
        living = process(tmp_path, "600", "never")
        assert living.stdout.readline() == "making\n" and not left.exists()
        [kept] = (tmp_path / "weights").glob(".unfinished-*")
        make(Store(tmp_path))
        assert kept.exists()
    finally:
        for one in filter(None, (dead, living)):
            one.kill()
            one.communicate(timeout=MOST)
    with Store(tmp_path).create("weights", {"a": 2}):
        assert not kept.exists()
    assert [path.name for path in (tmp_path / "locks" / "unfinished").iterdir()] == []


@pytest.mark.parametrize("host", ["gpu-01", "login"])
def test_what_another_machine_makes_is_kept(tmp_path, monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with Store(tmp_path).create("weights", {"a": 2}) as theirs:
        monkeypatch.setattr(socket, "gethostname", lambda: "gpu")
        monkeypatch.setattr(filelock.BaseFileLock, "acquire", lambda *given, **more: nullcontext())  # locks that are not seen
        monkeypatch.setattr(os, "kill", lambda *given: (_ for _ in ()).throw(ProcessLookupError))
        make(Store(tmp_path))
        assert theirs.exists()


def test_two_makers_of_the_same_entry_end_with_one(tmp_path):
    store = Store(tmp_path)
    with store.create("weights", {"a": 1}) as first:
        (first / "file").write_text("x")
        make(store)
    assert store.find("weights", {"a": 1})
    assert len(list((tmp_path / "weights").iterdir())) == 1


def test_files_that_have_not_changed_are_not_read_again_by_another_process_either(tmp_path, monkeypatch):
    from bitsure.base import hashing as module

    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text(file.name)
    expected = [hashlib.sha256(file.name.encode()).hexdigest() for file in files]
    assert Store(tmp_path / "store").hashes(files) == expected
    hash_file, read = module.hash_file, []
    monkeypatch.setattr(module, "hash_file", lambda path: read.append(path) or hash_file(path))
    again = lambda: [Store(tmp_path / "store").hashes(files), [path for path in read if path in files]]  # noqa: E731
    assert again() == [expected, []]
    files[1].write_text("c")  # as long as before
    os.utime(files[1], ns=(0, 10**9))
    assert again()[0] == [expected[0], hashlib.sha256(b"c").hexdigest()] and files[1] in read
    read.clear()
    (tmp_path / "moved").mkdir()
    assert Store(tmp_path / "store").hashes([files[0].rename(tmp_path / "moved" / "a")]) == expected[:1] and len(read) > 0


def test_a_store_is_known_by_its_place():
    assert Store("a") == Store("a") != Store("b") and hash(Store("a")) == hash(Store("a"))


@pytest.mark.parametrize("place", ["", "weights", "locks"])
def test_a_file_in_the_place_of_the_stores_folder_is_a_sentence(tmp_path, place):
    file = tmp_path / "store" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(UserError, match=r"store.*: (File exists|Not a directory)\..* choose another place: paths\.store=DIR"):
        Store(tmp_path / "store").ensure("weights", {"a": 1}, lambda entry: None)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "manifest", ["", "[]", "[" * 100_000, '{"sha256": 5}', '{"sha256": {"file": 1}, "stat": [1]}', "\udcff"]
)
def test_a_manifest_that_is_none_is_damage(tmp_path, manifest):
    make(Store(tmp_path))
    entry = Store(tmp_path).path("weights", {"a": 1})
    (entry / "manifest.json").write_text(manifest, encoding="utf-8", errors="surrogateescape")
    assert Store(tmp_path).find("weights", {"a": 1}) is None
    make(Store(tmp_path))
    assert Store(tmp_path).find("weights", {"a": 1})


def test_whoever_opens_a_store_is_told_how_long_it_waits(tmp_path, monkeypatch):
    monkeypatch.setattr("bitsure.base.store.PATIENCE", 0.1)
    owner, waits = process(tmp_path, "600", "never"), []
    assert owner.stdout.readline() == "making\n"
    threading.Timer(0.5, owner.kill).start()
    with Store(tmp_path, waits.append).lock("weights", {"a": 1}):
        owner.communicate()
    assert waits and set(waits) == {0.1}
