from __future__ import annotations

import pytest

from bitsure.scoring.forward import Scored
from bitsure.scoring.journal import Journal

A, B, C = ([1, 2], [3]), ([1, 2], [4, 5]), ([1], [2])
ONE = Scored([-0.1234567890123], True)
TWO = Scored([-1.5, -2.25], False)


def test_what_was_appended_is_read_back_exactly(tmp_path):
    Journal(tmp_path / "sub" / "j.jsonl").append([(A, ONE), (B, TWO)])
    again = Journal(tmp_path / "sub" / "j.jsonl")
    assert (again.get(A), again.get(B), again.get(C), len(again)) == (ONE, TWO, None, 2)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_cut_short_is_as_if_not_there_and_does_not_spoil_the_next(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    Journal(path).append([(A, ONE), (B, TWO)])
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert (again.get(A), again.get(B)) == (ONE, None if cut > 1 else TWO)
    again.append([(C, TWO)])
    assert (Journal(path).get(A), Journal(path).get(C)) == (ONE, TWO)


def test_an_edited_line_is_not_believed(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path).append([(A, ONE), (B, TWO)])
    path.write_text(path.read_text().replace("-2.25", "-0.25"))
    assert (Journal(path).get(A), Journal(path).get(B)) == (ONE, None)


def test_removing_twice_is_no_error(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([(A, ONE)])
    journal.remove()
    journal.remove()
    assert not journal.path.exists()
