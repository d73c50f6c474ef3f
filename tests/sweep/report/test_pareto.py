from __future__ import annotations

from bitsure.sweep.report import pareto
from tests.sweep.report.test_sweep_statistics import row


def test_a_front_by_hand():
    points = [row(size_bytes=size, value=value) for size, value in ((1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (4, 0.7))]
    assert [(one["size_bytes"], one["value"]) for one in pareto._front(points, pareto.ON_DISK)] == [(1, 0.5), (3, 0.7)]
    errors = [one | {"metric": "expected_calibration_error"} for one in points]
    assert [(one["size_bytes"], one["value"]) for one in pareto._front(errors, pareto.ON_DISK)] == [(1, 0.5), (2, 0.4)]
    fast = [row(scoring_tokens_per_second=speed, value=value) for speed, value in ((1, 0.5), (2, 0.7), (3, 0.6), (4, 0.4))]
    front = pareto._front(fast, pareto.SPEED)
    assert [one["scoring_tokens_per_second"] for one in front] == [4, 3, 2]  # the slowest is less right than a faster one
