"""How fast this machine is while a plan is made."""

from __future__ import annotations

import itertools

import pytest

from bitsure.sweep.launch import machine_speed, printed_plan
from bitsure.sweep.launch.composed_cell import CellErrors
from bitsure.sweep.launch.estimate import SECONDS_A_CELL, SECONDS_A_RUN, SECONDS_A_SWEEP, seconds_besides
from tests.builders.sweep_commands import compose_valid


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_thread_that_gets_a_part_of_a_processor_takes_as_many_times_as_long(monkeypatch, share):
    clock = itertools.count(step=0.01)
    now = [0.0]

    def wall() -> float:
        now[0] = next(clock)
        return now[0]

    monkeypatch.setattr(machine_speed.time, "perf_counter", wall)
    monkeypatch.setattr(machine_speed.time, "thread_time", lambda: share * now[0])
    assert machine_speed.slowdown.__wrapped__() == pytest.approx(1 / share, rel=0.1)


def test_other_work_slows_down_what_is_besides_the_work_of_cells():
    assert seconds_besides(1, 1.0) == SECONDS_A_RUN + SECONDS_A_CELL / 2  # its processes run side by side
    assert seconds_besides(1, 4.0) == 4 * (SECONDS_A_RUN + SECONDS_A_CELL)
    assert seconds_besides(10, 4.0) == 4 * (SECONDS_A_SWEEP + 10 * SECONDS_A_CELL)


@pytest.mark.parametrize(("slower", "on_nodes", "is_said"), [(1.0, False, False), (2.5, False, True), (2.5, True, False)])
def test_a_plan_says_that_other_work_slows_this_machine_down(monkeypatch, tmp_path, capsys, slower, on_nodes, is_said):
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path))
    monkeypatch.setattr(printed_plan, "slowdown", lambda: slower)
    printed_plan.show(compose_valid("model=pocket-300k", "quant=none", "task.limit=5"), CellErrors(), on_nodes)
    assert ("a process takes 2.5 times as long." in capsys.readouterr().out) == is_said
