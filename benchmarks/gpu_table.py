"""The table of `make bench-gpu`: rows as they are measured, what a device's peak is, and whether aims are reached."""

from __future__ import annotations

import gc
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.markdown_table import markdown_table
from bitsure.base.files import write_text

HERE = Path(__file__).parent
# TFLOP/s of dense products in bfloat16, of the makers' data sheets; of two names that fit, the first counts.
PEAKS = {
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


@dataclass
class Table:
    """What was measured so far; the files are written again after every row."""

    write: bool
    rows: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    about: dict[str, str] = field(default_factory=dict)
    until: float = 0.0
    """Seconds after the start when this part of the rows must have ended."""
    longest: float = 0.0
    """Seconds of the part's longest row so far."""

    def begin(self, until: float) -> None:
        """Begin a part of the rows, which must have ended so many seconds after the start."""
        self.until, self.longest = until, 0.0

    @property
    def left(self) -> float:
        """Seconds that are left for this part."""
        return self.started + self.until - time.monotonic()

    def add(self, measure: Callable[[], dict[str, float]], **what: str) -> dict[str, float]:
        """Measure a row and return its numbers; none if it fails or would take too long, and the row says so."""
        began, numbers, note = time.monotonic(), {}, ""
        if self.left < self.longest:
            note = "not taken: the time was over"
        else:
            try:
                numbers = measure()
            except (
                RuntimeError,
                ValueError,
                OSError,
                ImportError,
                subprocess.SubprocessError,
            ) as error:  # as of a library that does not run here: others go on
                message = (getattr(error, "stderr", None) or f"{type(error).__name__}: {error}").strip().splitlines()
                note = f"failed: {message[-1][:120]}"
            free()
            self.longest = max(self.longest, time.monotonic() - began)
        shown = {name: f"{value:.4g}" for name, value in numbers.items()}
        self.note(**what, **shown, **({"note": note} if note else {}))
        return numbers

    def note(self, **row: str) -> None:
        """Add a row."""
        self.rows.append(row)
        print(row, flush=True)
        self.write_files()

    def write_files(self) -> None:
        """Write gpu.md and gpu.json, on a GPU."""
        if self.write:
            write_text(HERE / "gpu.json", json.dumps({"about": self.about, "rows": self.rows}, indent=1) + "\n")
            write_text(HERE / "gpu.md", self.markdown())

    def markdown(self) -> str:
        """Return the page."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = "\n".join(markdown_table(columns, ([row.get(name, "") for name in columns] for row in self.rows)))
        about = "".join(f"- {name}: {value}\n" for name, value in self.about.items())
        return (
            f"# On a GPU\n\nMade by `make bench-gpu`. Models have random weights of the shapes.\n\n{about}\n{table}\n\n"
            "Tokens are those of all inputs, each counted whole. The share of the peak counts the least work that gives the "
            "numbers: every distinct prefix once, and the head where a token is scored. `whole model` is all blocks at the "
            "rate of some.\n" + "".join(f"\n- {aim}" for aim in aims(self.rows)) + "\n"
        )


def free() -> None:
    """Give the memory of what is not used any more back to the GPU, also to other processes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def published_peak(device: str) -> float | None:
    """Return multiply-adds a second of a device's data sheet, given its name; None if it is not known here."""
    return next((tflops * 1e12 / 2 for name, tflops in PEAKS.items() if name in device), None)


def aims(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield each aim and whether it is reached, as far as its rows were taken."""
    for row in rows:
        if row.get("model") == "1.3B" and row["way"] == "bitsure" and "share of peak" in row:
            yield f"{row['shape']}, 1.3B: {row['share of peak']} of the matrix peak; the aim is 0.5"
        if row["way"] == "bitsure" and "times HFLM" in row:
            yield f"{row['shape']}, {row['model']}: {row['times HFLM']} times HFLM at its best batch; the aim is 2"
        if row.get("model") == "7B" and row["way"] == "native" and "seconds" in row:
            yield f"GPTQ of 7B: {row['whole model, s']} s for the whole model; the aim is 600"
        if row.get("model") == "7B" and row["way"] == "gptqmodel" and "times native" in row:
            yield f"GPTQ of 7B: gptqmodel takes {row['times native']} times as long; the aim is 1.5"
