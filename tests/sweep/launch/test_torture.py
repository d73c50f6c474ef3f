"""A sweep under every launcher while cells are killed, a lock's owner dies, files are cut short and a disk is full: once the
same command has run again, everything is what it would have been, to the last bit.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bitsure.base.files import hash_json
from bitsure.base.store import Store
from bitsure.config.paths import PROJECT
from bitsure.records.parquet import read_records
from bitsure.results.costs import WorkCosts
from bitsure.run.directory import read_status
from bitsure.sweep.launch.callback import is_installed
from tests.builders.stopped_runs import MOST

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
    assert sweep(folder, []).wait(timeout=2 * MOST) == 0, (folder / "out.log").read_text()
    return folder


class Disturber(threading.Thread):
    """While a sweep runs: kills the processes of some cells with signal 9, two of them early and two amid the scoring of their
    quantized model, and lets the disk of one be full.

    journals: what each quantized cell has scored of its own model.
    """

    def __init__(self, folder: Path, seed: int, journals: dict[int, Path]):
        super().__init__(daemon=True)
        chance = random.Random(seed)
        self.scoring = {number: journals[number] for number in chance.sample(sorted(journals), 2)}
        *early, self.full = chance.sample(sorted(set(range(CELLS)) - self.scoring.keys()), 3)
        self.folder, self.over = folder, threading.Event()
        self.after = {number: chance.uniform(0, 0.6) for number in early} | {self.full: 0.0}
        self.hit: set[int] = set()

    def run(self) -> None:
        since: dict[int, float] = {}
        while not self.over.wait(0.005):
            for path in self.folder.glob("sweep/*/status.json"):
                number, status = int(path.parent.name.split("-")[0]), read_status(path.parent)
                if number in self.hit or status is None or status.state != "running":
                    continue
                if number in self.scoring:
                    due = scored(self.scoring[number]) > 0
                else:
                    due = time.monotonic() - since.setdefault(number, time.monotonic()) >= self.after.get(number, math.inf)
                if due:
                    self._disturb(number, status.pid)

    def _disturb(self, number: int, process: int) -> None:
        try:
            if number == self.full:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow beyond
            else:
                os.kill(process, signal.SIGKILL)
            self.hit.add(number)
        except ProcessLookupError:
            pass


def scored(journal: Path) -> int:
    """How many lines of a journal come after the first one, which says what batches may have."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.is_file() else 0


def made_from(cell: Path) -> tuple[dict, dict, dict]:
    """What the store keeps of a quantized cell by: its weights, its records and those in full precision."""
    [own], [full] = (read_records(cell / f"{name}.parquet")[1].values() for name in ("records", "baseline"))
    return json.loads((cell / "provenance.json").read_text())["weights"], own, full


def stored(folder: Path) -> dict[str, str]:
    """The hashes of what is in the store, each entry as it was written; of files that tell no time."""
    store, found = Store(folder / "store"), {}
    for path in store.root.glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        assert store.find(path.parent.parent.name, manifest["made_from"], to_read=True), path
        hashes = {f"{path.parent.relative_to(store.root)}/{name}": one for name, one in manifest["sha256"].items()}
        found |= {name: one for name, one in hashes.items() if name.endswith((".parquet", ".safetensors"))}
    return found


def results(folder: Path) -> dict[str, dict]:
    """What the cells of a sweep found, without the time it took."""
    found = {}
    for cell in sorted((folder / "sweep").glob("[0-9]*")):
        rows = read_records(cell / "records.parquet")[0]
        numbers = {
            name: (cell / f"{name}.json").read_bytes()
            for name in ("metrics", "baseline_metrics", "comparison", "verdict")
            if (cell / f"{name}.json").exists()
        }
        found[cell.name] = {"state": read_status(cell).state, "rows": rows.to_pylist(), **numbers}
        if "none" not in cell.name:
            proof = json.loads((cell / "quantization.json").read_text())
            proof["checkpoint"] = Path(proof["checkpoint"]).name  # each sweep has a store of its own
            found[cell.name]["proof"] = {key: value for key, value in proof.items() if key not in WorkCosts.model_fields}
    return found


def table(folder: Path) -> bytes:
    return (folder / "sweep" / "sweep.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", LAUNCHERS)
def test_a_tortured_sweep_ends_with_the_same_bits(undisturbed, tmp_path, arguments):
    expected = results(undisturbed)
    assert len(expected) == CELLS and all(cell["state"] == "done" for cell in expected.values())
    lock = min((undisturbed / "store" / "locks" / "records").iterdir()).name
    path = tmp_path / "store" / "locks" / "records" / lock
    path.parent.mkdir(parents=True)
    owner = subprocess.Popen([sys.executable, "-c", HOLDS_A_LOCK, str(path)], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"held\n"
    # keys follow from what is made: they are the same here
    needed = {int(name.split("-")[0]): made_from(undisturbed / "sweep" / name) for name in expected if "none" not in name}
    journals = {
        number: tmp_path / "store" / "unfinished" / f"{hash_json(own)[:24]}.jsonl" for number, (_, own, _) in needed.items()
    }
    process, disturber = sweep(tmp_path, arguments), Disturber(tmp_path, 7, journals)
    disturber.start()
    try:
        time.sleep(8)
        assert process.poll() is None
        owner.kill()  # as the kernel does when it is out of memory
        code = process.wait(timeout=2 * MOST)
    finally:
        owner.kill()
        owner.communicate()
        process.kill()
        disturber.over.set()
    said = (tmp_path / "out.log").read_text()
    states = {int(cell.name.split("-")[0]): read_status(cell) for cell in (tmp_path / "sweep").glob("[0-9]*")}
    assert code == 1, said
    assert disturber.hit >= {disturber.full, *disturber.scoring} and len(disturber.hit) >= 4, said
    assert {number for number, status in states.items() if status.state != "done"} == disturber.hit, said
    for number in disturber.hit - {disturber.full}:
        assert states[number].state == "killed" and "SIGKILL" in states[number].error
    assert states[disturber.full].state == "failed" and states[disturber.full].error  # as much as could be written

    assert all(scored(journal) for journal in disturber.scoring.values())

    kept = next(cell for cell in sorted(expected) if states[int(cell.split("-")[0])].state == "done")
    store, cut_short = Store(tmp_path / "store"), {tmp_path / "sweep" / kept / "records.parquet"}
    for number in disturber.scoring:  # what these cells still need
        weights, _, full = needed[number]
        cut_short |= {*store.path("weights", weights).glob("*.safetensors"), store.path("records", full) / "records.parquet"}
    for file in cut_short:
        os.truncate(file, file.stat().st_size // 2)
    assert sweep(tmp_path, arguments).wait(timeout=2 * MOST) == 0, (tmp_path / "out.log").read_text()
    logs = {int(path.parent.name.split("-")[0]): path.read_text() for path in tmp_path.glob("sweep/*/main.log")}
    for file in cut_short:
        assert not file.is_relative_to(store.root) or any(f"{file.parent} is damaged" in log for log in logs.values()), file
    assert all("choices and answers were scored before" in logs[number] for number in disturber.scoring)
    assert results(tmp_path) == expected
    assert stored(tmp_path) == stored(undisturbed)
    assert table(tmp_path) == table(undisturbed)
    begun = {path: path.read_bytes() for path in tmp_path.glob("sweep/*/status.json")}
    assert sweep(tmp_path, arguments).wait(timeout=2 * MOST) == 0
    assert len(begun) == CELLS and all(path.read_bytes() == before for path, before in begun.items())  # nothing to do
