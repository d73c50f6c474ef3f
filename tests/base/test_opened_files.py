"""Files that a user's own code reads are recorded, but for those in folders that are left out."""

from __future__ import annotations

from bitsure.base.opened_files import opened_files


def test_a_folder_whose_name_begins_like_one_that_is_left_out_is_not_left_out(tmp_path):
    for folder in ("cache", "cache_of_mine"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    code = "for folder in folders: open(folder / 'file').close()"
    with opened_files({tmp_path / "code"}, [tmp_path / "cache"]) as places:
        exec(compile(code, tmp_path / "code" / "own.py", "exec"), {"folders": [tmp_path / "cache", tmp_path / "cache_of_mine"]})
    assert places == {tmp_path / "cache_of_mine" / "file"}
