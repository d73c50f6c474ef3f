from __future__ import annotations

import pytest


@pytest.fixture
def some_harness_tasks(monkeypatch) -> None:
    """Let the harness have a few folders of its tasks alone, which are listed at once."""
    from tests.builders.harness_tasks import some_tasks

    monkeypatch.setattr("bitsure.tasks.task_names.task_manager", some_tasks)
