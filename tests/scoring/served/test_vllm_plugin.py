"""vLLM's processes end with the run that let it start them, and with no other."""

from __future__ import annotations

import subprocess
import sys

from bitsure.config.paths import PROJECT
from bitsure.scoring.served import vllm_plugin
from tests.builders.stopped_runs import MOST, is_alive, wait_until

RUN = """
import multiprocessing, os, signal, sys, time
from bitsure.scoring.served import vllm_plugin

def engine(ready):
    vllm_plugin.end_with_run()
    ready.set()
    time.sleep(float(sys.argv[1]))

os.environ[vllm_plugin.STARTED_BY] = str(os.getpid())
context = multiprocessing.get_context("fork")
ready = context.Event()
child = context.Process(target=engine, args=(ready,))
child.start()
ready.wait()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_of_a_run_that_was_killed_ends():
    command = [sys.executable, "-c", RUN, str(2 * MOST)]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=MOST)
    assert killed.returncode == -9
    wait_until(lambda: not is_alive(int(killed.stdout)), "it has ended")


def test_processes_of_other_programs_are_left_alone(monkeypatch):
    ended = []
    monkeypatch.setattr(vllm_plugin, "end_with_parent", lambda: ended.append(1))
    monkeypatch.setattr(vllm_plugin.multiprocessing, "parent_process", lambda: "another")
    monkeypatch.delenv(vllm_plugin.STARTED_BY, raising=False)
    vllm_plugin.end_with_run()
    monkeypatch.setenv(vllm_plugin.STARTED_BY, str(vllm_plugin.os.getpid()))
    vllm_plugin.end_with_run()  # the run itself
    assert ended == []
    monkeypatch.setenv(vllm_plugin.STARTED_BY, "1")
    vllm_plugin.end_with_run()
    assert ended == [1]


def test_vllm_finds_it():
    declared = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    value = f"{vllm_plugin.__name__}:{vllm_plugin.end_with_run.__name__}"
    assert f'[project.entry-points."vllm.general_plugins"]\nbitsure = "{value}"' in declared
