from __future__ import annotations

import pytest

from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.requests import Scored

A, B, C = ([1, 2], [3]), ([1, 2], [4, 5]), ([1], [2])
ONE = Scored([-0.1234567890123], True)
TWO = Scored([-1.5, -2.25], False)
LIMITS = Limits(512, 256)


def begun(path) -> Journal:
    journal = Journal(path)
    journal.begin(LIMITS)
    return journal


def test_what_was_appended_is_read_back_exactly(tmp_path):
    begun(tmp_path / "sub" / "j.jsonl").append([(A, ONE), (B, TWO)])
    again = Journal(tmp_path / "sub" / "j.jsonl")
    assert (again.get(A), again.get(B), again.get(C), len(again)) == (ONE, TWO, None, 2)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_cut_short_is_ignored_and_does_not_spoil_the_next(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    begun(path).append([(A, ONE), (B, TWO)])
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert (again.get(A), again.get(B)) == (ONE, None if cut > 1 else TWO)
    again.append([(C, TWO)])
    assert (Journal(path).get(A), Journal(path).get(C)) == (ONE, TWO)


def test_an_edited_line_is_ignored(tmp_path):
    path = tmp_path / "j.jsonl"
    begun(path).append([(A, ONE), (B, TWO)])
    path.write_text(path.read_text().replace("-2.25", "-0.25"))
    assert (Journal(path).get(A), Journal(path).get(B)) == (ONE, None)


def test_removing_twice_is_no_error(tmp_path):
    journal = begun(tmp_path / "j.jsonl")
    journal.append([(A, ONE)])
    journal.remove()
    journal.remove()
    assert not journal.path.exists()


@pytest.mark.parametrize("kept", [True, False])
def test_limits_are_set_once_and_lowered_from_some_batch_on(tmp_path, kept):
    path = tmp_path / "j.jsonl" if kept else None
    journal = begun(path)
    journal.begin(Limits(1, 1))
    journal.append([(A, ONE)])
    journal.lower(1, Limits(100, 100))
    journal.lower(1, Limits(50, 50))
    journal.lower(3, Limits(25, 25))
    for one in (journal, Journal(path)) if kept else (journal,):
        assert [one.limits(after) for after in (0, 1, 2, 3, 9)] == [LIMITS, (50, 50), (50, 50), (25, 25), (25, 25)]
        assert one.get(A) == ONE


def test_if_two_processes_begin_the_first_ones_limits_hold(tmp_path):
    first, second = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    first.begin(LIMITS)
    second.begin(Limits(1, 1))
    assert first.limits(0) == second.limits(0) == Journal(tmp_path / "j").limits(0) == LIMITS


def test_what_was_run_in_unknown_batches_is_ignored(tmp_path):
    path = tmp_path / "j.jsonl"
    begun(path).append([(A, ONE)])
    path.write_text("x" + path.read_text())
    journal = Journal(path)
    journal.begin(Limits(1, 1))
    assert (journal.get(A), journal.limits(0)) == (None, (1, 1))
    journal.append([(B, TWO)])
    assert (Journal(path).get(A), Journal(path).get(B)) == (None, TWO)
