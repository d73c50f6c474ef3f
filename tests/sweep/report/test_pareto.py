from __future__ import annotations

from bitsure.sweep.report.pareto import ON_DISK, SPEED, pareto, pareto_front
from tests.builders.study_rows import study_row


def test_the_front_is_what_no_cheaper_row_equals():
    points = ((1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (4, 0.7))
    rows = [study_row(size_bytes=size, value=value) for size, value in points]
    assert [(row.size_bytes, row.value) for row in pareto_front(rows, ON_DISK)] == [(1, 0.5), (3, 0.7)]
    errors = [study_row(metric="expected_calibration_error", size_bytes=size, value=value) for size, value in points]
    assert [(row.size_bytes, row.value) for row in pareto_front(errors, ON_DISK)] == [(1, 0.5), (2, 0.4)]


def test_of_speed_more_is_better():
    points = ((1, 0.5), (2, 0.7), (3, 0.6), (4, 0.4))
    rows = [study_row(packed_tokens_per_second=speed, value=value) for speed, value in points]
    # The slowest is less often right than a faster one.
    assert [row.packed_tokens_per_second for row in pareto_front(rows, SPEED)] == [4, 3, 2]


def test_weights_in_dense_layers_have_no_picture_of_speed():
    rows = [study_row(quantizer=name, scoring_tokens_per_second=1.0) for name in ("rtn4", "gptq4")]
    assert pareto(rows, SPEED) is None
