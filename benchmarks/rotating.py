"""What rotations add to GPTQ: `python -m benchmarks.rotating` writes it into benchmarks/quantize.md.

The model of benchmarks/quantize.py is quantized by our own solver with and without R1 and R2 folded into its weights, in turns,
by one thread. Processor time is counted, so that it can be measured on a busy machine. Each pair writes the page.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.quantize import GPTQ, PAGE, SEQLEN, tokens, write_model
from benchmarks.regions import fill
from bitsure.config.quantizers import Rounded
from bitsure.quantize.libraries.gptq import Gptq

BLOCKS = 12
QUANTIZERS = {
    "plain": Gptq(**GPTQ, backend="native"),
    "rotated": Gptq(**GPTQ, backend="native", transforms=["rotate"]),
}


def main() -> None:
    """Measure pair after pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--windows", type=int, default=32, help=f"of {SEQLEN} tokens; fewer make rotations a larger share")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model, BLOCKS)
        processor_seconds(model, QUANTIZERS["rotated"], 1)  # What a process does at first is not of one of the two.
        for number in range(given.pairs):
            names = ["plain", "rotated"] if number % 2 else ["rotated", "plain"]
            seconds = {name: processor_seconds(model, QUANTIZERS[name], given.windows) for name in names}
            pairs.append((seconds["plain"], seconds["rotated"]))
            lines = sentence(pairs, given.windows)
            print(*lines, flush=True)
            PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"rotations": lines}), encoding="utf-8")


def processor_seconds(path: Path, quant: Rounded, windows: int) -> float:
    """Return what it takes to load and quantize a model."""
    from bitsure.models.load import load_model
    from bitsure.quantize.native import chain

    with tempfile.TemporaryDirectory() as folder:
        parts, out = Path(folder, "parts"), Path(folder, "out")
        out.mkdir()
        started = time.process_time()
        model, _ = load_model(path, "float32", device="cpu")
        chain.quantize(model, quant, tokens(windows, 1), parts, out, lambda *a, **k: None)
        return time.process_time() - started


def sentence(pairs: list[tuple[float, float]], windows: int) -> list[str]:
    """Return the ratio of pairs, (not rotated, rotated) processor seconds each."""
    plain, rotated = zip(*pairs, strict=True)
    ratios = [second / first for first, second in pairs]
    return [
        f"`python -m benchmarks.rotating --pairs {len(pairs)} --windows {windows}`: GPTQ by our own solver with R1 and R2 "
        f"folded into the weights takes {statistics.median(ratios):.2f} times the processor time of GPTQ alone, the median of "
        f"{len(pairs)} pairs ({min(ratios):.2f} to {max(ratios):.2f}); medians {statistics.median(rotated):.1f} and "
        f"{statistics.median(plain):.1f} s, {windows} × {SEQLEN} tokens, one thread.",
    ]


if __name__ == "__main__":
    main()
