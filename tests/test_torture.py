"""A sweep under every launcher while cells are killed, a lock's owner dies, files are cut short and a disk is full: once the
same command has run again, everything is what it would have been, to the last bit.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure import records
from bitsure.callback import is_installed
from bitsure.config import PROJECT
from bitsure.rundir import read_status

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's limits on another process")

CELLS = 12
SWEEP = [
    "-m",
    "model=pocket-300k,pocket-300k-seed1",
    "quant=none,rtn2,rtn3,rtn4,awq3,awq4",
    "task.names=[pocket_recall]",
    "task.limit=150",
    "calib.nsamples=16",
    "calib.seqlen=64",
    "metric.resamples=100",
    "compress.codes=0",
    "tracking.mode=disabled",
]
HOLDS_A_LOCK = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def launcher(name: str, *settings: str, package: str):
    skip = pytest.mark.skipif(
        not is_installed(package), reason=f"{package} is not installed: pip install -e '.[{name.split('_')[0]}]'"
    )
    return pytest.param([f"hydra/launcher={name}", *settings], id=name, marks=[pytest.mark.slow, skip])


LAUNCHERS = [
    pytest.param([], id="basic"),
    launcher("joblib", "hydra.launcher.n_jobs=2", package="hydra_joblib_launcher"),
    launcher("submitit_local", "hydra.sweeper.max_batch_size=3", package="hydra_submitit_launcher"),
    launcher("ray", "hydra.launcher.ray.init.num_cpus=2", package="hydra_ray_launcher"),
]


def sweep(folder: Path, arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT / "main.py"), *SWEEP, f"hydra.sweep.dir={folder / 'sweep'}", *arguments]
    environment = os.environ | {"BITSURE_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    folder.mkdir(exist_ok=True)
    with (folder / "out.log").open("a") as out:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert sweep(folder, []).wait(timeout=400) == 0, (folder / "out.log").read_text()
    return folder


class Disturber(threading.Thread):
    """While a sweep runs: kills the processes of some cells with signal 9 and lets the disk of one be full."""

    def __init__(self, folder: Path, seed: int):
        super().__init__(daemon=True)
        chance = random.Random(seed)
        *killed, full = chance.sample(range(CELLS), 5)
        self.folder, self.over = folder, threading.Event()
        self.after = {number: chance.uniform(0, 0.6) for number in killed} | {full: 0.0}
        self.full = full
        self.hit: set[int] = set()

    def run(self) -> None:
        since: dict[int, float] = {}
        while not self.over.wait(0.005):
            for path in self.folder.glob("sweep/*/status.json"):
                number, status = int(path.parent.name.split("-")[0]), read_status(path.parent)
                if number not in self.after or number in self.hit or status.get("state") != "running":
                    continue
                if time.monotonic() - since.setdefault(number, time.monotonic()) >= self.after[number]:
                    self._disturb(number, status["pid"])

    def _disturb(self, number: int, process: int) -> None:
        try:
            if number == self.full:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow beyond
            else:
                os.kill(process, signal.SIGKILL)
            self.hit.add(number)
        except ProcessLookupError:
            pass


def results(folder: Path) -> dict[str, dict]:
    """What the cells of a sweep found, without the time it took."""
    found = {}
    for cell in sorted((folder / "sweep").glob("[0-9]*")):
        rows = records.read(cell / "records.parquet")[0]
        numbers = {
            name: (cell / f"{name}.json").read_bytes()
            for name in ("metrics", "baseline_metrics", "comparison", "verdict")
            if (cell / f"{name}.json").exists()
        }
        found[cell.name] = {"state": read_status(cell)["state"], "rows": rows.to_pylist(), **numbers}
        if "none" not in cell.name:
            proof = json.loads((cell / "quantization.json").read_text())
            found[cell.name]["proof"] = {key: value for key, value in proof.items() if key != "seconds"}
    return found


def table(folder: Path) -> pa.Table:
    return pq.read_table(folder / "sweep" / "sweep.parquet")


@pytest.mark.parametrize("arguments", LAUNCHERS)
def test_a_tortured_sweep_ends_with_the_same_bits(undisturbed, tmp_path, arguments):
    expected = results(undisturbed)
    assert len(expected) == CELLS and all(cell["state"] == "done" for cell in expected.values())
    lock = min((undisturbed / "store" / "locks" / "records").iterdir()).name  # keys follow from what is made: the same here
    path = tmp_path / "store" / "locks" / "records" / lock
    path.parent.mkdir(parents=True)
    owner = subprocess.Popen([sys.executable, "-c", HOLDS_A_LOCK, str(path)], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"held\n"
    process, disturber = sweep(tmp_path, arguments), Disturber(tmp_path, seed=7)
    disturber.start()
    try:
        time.sleep(8)
        assert process.poll() is None
        owner.kill()  # as the kernel does when it is out of memory
        code = process.wait(timeout=400)
    finally:
        owner.kill()
        owner.communicate()
        process.kill()
        disturber.over.set()
    said = (tmp_path / "out.log").read_text()
    states = {int(cell.name.split("-")[0]): read_status(cell) for cell in (tmp_path / "sweep").glob("[0-9]*")}
    assert code == 1, said
    assert disturber.hit >= {disturber.full} and len(disturber.hit) >= 4, said
    assert {number for number, status in states.items() if status["state"] != "done"} == disturber.hit, said
    for number in disturber.hit - {disturber.full}:
        assert states[number]["state"] == "killed" and "SIGKILL" in states[number]["error"]
    assert states[disturber.full]["state"] == "failed" and states[disturber.full]["error"]  # as much as could be written

    kept = next(cell for cell in sorted(expected) if states[int(cell.split("-")[0])]["state"] == "done")
    cut_short = [
        max(tmp_path.glob("store/records/*/records.parquet")),
        max(tmp_path.glob("store/weights/*/*.safetensors")),
        tmp_path / "sweep" / kept / "records.parquet",
    ]
    for file in cut_short:
        os.truncate(file, file.stat().st_size // 2)
    assert sweep(tmp_path, arguments).wait(timeout=400) == 0, (tmp_path / "out.log").read_text()
    assert results(tmp_path) == expected
    assert table(tmp_path).equals(table(undisturbed))
    assert sweep(tmp_path, arguments).wait(timeout=100) == 0
    assert (tmp_path / "out.log").read_text().count("is done: nothing to do") >= CELLS
