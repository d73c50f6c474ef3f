"""Files are there whole or not at all, and a full or forbidden disk is a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from bitsure.base.errors import DiskError, UserError
from bitsure.base.files import atomic_path, disk_errors, hash_json, make_writable, write_text
from tests.builders.stopped_runs import MOST


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_the_old_file_and_names_the_place(tmp_path, number):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(DiskError) as raised, atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(raised.value).startswith(f"{tmp_path / 'a.json'}: {os.strerror(number)}. Free space, or choose another place: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "old"


def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DiskError, match=r"pipe is a device or a pipe\. Choose another place"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_place_that_may_not_be_written_is_a_sentence(tmp_path, number):
    with pytest.raises(UserError, match="Make it a directory that may be read and written"), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / ".a.json.1234"))


def test_errors_of_libraries_in_rust_say_their_number_in_their_text(tmp_path):
    with pytest.raises(DiskError, match="No space left on device"), disk_errors(tmp_path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no"), KeyError("a"), RuntimeError("error 28")])
def test_other_errors_keep_their_traceback(tmp_path, error):
    with pytest.raises(type(error)) as raised, disk_errors(tmp_path):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_place_of_a_folder_is_a_sentence(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'file' / below}: (File exists|Not a directory)"):
        make_writable(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


LIMITED = """
import resource, sys
from pathlib import Path
from bitsure.base.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
store = Store(sys.argv[1])
with store.create("records", {"a": 1}) as entry:
    (entry / "rows").write_bytes(bytes(10**6))
"""


def test_a_store_without_room_keeps_no_half_entry(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=MOST)
    assert f"DiskError: {tmp_path}/records/" in done.stderr and "File too large. Free space, or choose" in done.stderr
    assert list((tmp_path / "records").iterdir()) == []


def test_names_that_are_no_text_are_hashed_and_written_as_the_bytes_they_are(tmp_path):
    name = os.fsdecode(b"gr\xc3\xb6\xff")  # as file names come where they are not in the locale's encoding
    write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_bytes() == os.fsencode(name) and len(hash_json(name)) == 64
