"""Every causal class of transformers: is it scored, how, and what quantizes it? `make classes` writes docs/classes.md."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.class_row import ClassRow, study
from benchmarks.regions import fill
from bitsure.config import schema
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.validation import to_dataclasses
from bitsure.quantize.quantizer import Quantizer, as_quantizer

PAGE = PROJECT / "docs" / "classes.md"
ROWS = PROJECT / "outputs" / "classes.jsonl"
WORKERS = 2
MOST_SECONDS = 300  # of one class
QUANTIZERS = {
    "rtn": ["quant=rtn4"],
    "gptq, native": ["quant=gptq4", "quant.backend=native"],
    "gptq, gptqmodel": ["quant=gptq4"],
    "awq": ["quant=awq4"],
}


def families() -> dict[str, str]:
    """Return transformers' causal language models: `model_type` → class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return {family: str(name) for family, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}


def presets() -> dict[str, Quantizer]:
    """Return the quantizers of the table."""
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return {
            name: as_quantizer(to_dataclasses(compose("config", overrides=given)).quant) for name, given in QUANTIZERS.items()
        }


class Worker:
    """A process that studies one class after the other; one that takes too long, or dies, is replaced."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()  # it is ready: imports do not count

    def study(self, family: str, name: str) -> ClassRow:
        """Return the row of a class."""
        self._connection.send((family, name))
        try:
            if self._connection.poll(MOST_SECONDS):
                row: ClassRow = self._connection.recv()
                return row
            crash = f"it took longer than {MOST_SECONDS} seconds"
        except EOFError:
            self._process.join()
            crash = f"the process ended with {self._process.exitcode}"
        self._process.kill()
        self._start()
        return ClassRow(family, name, "crashed", crashes=[crash])

    def stop(self) -> None:
        self._process.kill()


def serve(connection: Connection) -> None:
    """Study the classes that come through a pipe."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    quantizers = presets()
    connection.send("ready")
    while True:
        family, name = connection.recv()
        with tempfile.TemporaryDirectory() as folder:
            connection.send(study(family, name, quantizers, Path(folder)))


def study_all(wanted: Mapping[str, str], rows: Path, workers: int) -> None:
    """Study classes in several processes, and write each row to a file as it comes."""
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for item in wanted.items():
        waiting.put(item)
    writing = threading.Lock()

    def work() -> None:
        worker = Worker()
        while True:
            try:
                family, name = waiting.get_nowait()
            except queue.Empty:
                return worker.stop()
            row = worker.study(family, name)
            with writing, rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
                print(f"{row.seconds:5.1f} s", family, row.scoring, *row.crashes, flush=True)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read_rows(path: Path) -> dict[str, ClassRow]:
    """Return the rows of a file by family; of several the last one counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {row.family: row for row in (ClassRow(**json.loads(line)) for line in lines)}


def summary(rows: Sequence[ClassRow]) -> list[str]:
    """Return how many classes are scored and quantized."""
    ways = Counter(row.scoring if row.scored else "refused" for row in rows)
    equal = Counter(row.equality for row in rows)
    lines = [
        f"{len(rows)} of the {len(families())} causal families of transformers {version('transformers')} are in the table. "
        f"It took {sum(row.seconds for row in rows) / 60:.0f} processor minutes.",
        "",
        "| | classes |",
        "|---|---:|",
        f"| scored, prefixes shared in one pass | {ways['trees']} |",
        f"| scored, prefixes shared by copies of the state | {ways['copies']} |",
        f"| scored, prefixes shared by copies of the state, read on token by token | {ways['tokens']} |",
        f"| scored plainly | {ways['plain']} |",
        f"| refused | {ways['refused']} |",
        f"| scores equal to plain float64 passes | {equal['float64']} |",
        f"| scores equal to plain float32 passes, which themselves are off or run in no other type | {equal['float32']} |",
    ]
    for name in QUANTIZERS:
        done = sum(row.share(name) is not None for row in rows)
        lines.append(f"| quantized by {name} | {done} |")
    lines.append(f"| crashed | {sum(bool(row.crashes) for row in rows)} |")
    return lines


def table(rows: Sequence[ClassRow]) -> list[str]:
    """Return a line a class, then the reasons."""
    reasons: dict[str, int] = {}

    def cell(text: str) -> str:
        return f"refused ({reasons.setdefault(text, len(reasons) + 1)})"

    lines = [
        "| family | class | scored | equal to | " + " | ".join(QUANTIZERS) + " |",
        "|---|---|---|---|" + "---|" * len(QUANTIZERS),
    ]
    for row in rows:
        scored = row.scoring if row.scored else cell(row.scoring)
        if row.why:
            scored += f" ({reasons.setdefault(row.why, len(reasons) + 1)})"
        shares = [row.share(name) or cell(row.quantized.get(name, "crashed")) for name in QUANTIZERS]
        lines.append(f"| {row.family} | {row.name} | {scored} | {row.equality} | " + " | ".join(shares) + " |")
    return [*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())]


def write_page(path: Path) -> None:
    """Write the page from a file of rows, in transformers' order."""
    known = read_rows(path)
    rows = [known[family] for family in families() if family in known]
    page = fill(PAGE.read_text(encoding="utf-8"), {"summary": summary(rows), "classes": table(rows)})
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    """Study what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", nargs="*", default=[], metavar="FAMILY", help="families that are studied again")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of rows; a stopped command goes on there")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes at a time")
    given = parser.parse_args()
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    known, every = read_rows(given.rows), families()
    wanted = {family: name for family, name in every.items() if family not in known or family in given.again}
    study_all(wanted, given.rows, given.workers)
    write_page(given.rows)
    crashed = [row.family for row in read_rows(given.rows).values() if row.crashes]
    if crashed:
        sys.exit(f"Error: {', '.join(crashed)} crashed; {given.rows} has the errors.")


if __name__ == "__main__":
    main()
