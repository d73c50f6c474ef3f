from __future__ import annotations

import itertools

from bitsure.base import hashing, progress, terminal
from bitsure.base.files import hash_file
from bitsure.base.store import Store


def test_hashing_large_files_shows_the_time_left_while_a_librarys_output_goes_to_a_file(tmp_path, capsys, monkeypatch):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(file.name.encode() * (2 * hashing.MIB + 7))
    monkeypatch.setattr(hashing, "CHUNK", hashing.MIB)
    clock = itertools.count(0, 6)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    for shown, where in ((hashing.SHOWN, "small"), (3 * hashing.MIB, "large")):
        monkeypatch.setattr(hashing, "SHOWN", shown)
        with progress.progress("checking", 1, "cells"), terminal.output_to(tmp_path / "log"):
            assert Store(tmp_path / where).hashes(files) == [hash_file(file) for file in files]
        lines = capsys.readouterr().out.splitlines()
        if where == "small":
            assert lines == []
    assert lines[0] == "hashing files to identify them: 2 of 4 MiB, 0:00:12 elapsed, 0:00:12 left"
    assert (tmp_path / "log").read_text() == ""
