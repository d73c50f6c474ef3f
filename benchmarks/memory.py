"""Memory that runs take, beside the estimates of `plan=true`: `make bench-memory` writes benchmarks/memory.md.

Each case is a command of its own with a store of its own, in multirun/memory; one that is done there is not run again.
What the page says of a case that was not run there stays, beside the estimate as it is now.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose, initialize_config_dir

from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.base.work import read_cost
from bitsure.config import schema
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.validation import to_dataclasses
from bitsure.quantize.make import PROOF
from bitsure.results import Quantization, read_if_there
from bitsure.run import preparation
from bitsure.sweep.launch.dry_run import pieces_of
from bitsure.sweep.launch.estimate import WorkEstimator

PAGE = Path(__file__).parent / "memory.md"
RUNS = PROJECT / "multirun" / "memory"
MODELS = RUNS / "models"
OPT = {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
QUANTIZERS = {
    "rtn4": ["quant=rtn4"],
    "gptq4, native": ["quant=gptq4", "quant.backend=native"],
    "gptq4, gptqmodel": ["quant=gptq4"],
    "awq4": ["quant=awq4"],
}
FEW = ["task=pocket", "task.limit=10", "calib=pocket"]
LARGE = ["calib.nsamples=16", "calib.seqlen=256"]  # less text, of which memory is a small part there
ON_DISK = ["model.device_map=auto", "model.max_memory=[cpu:20MB]"]
COMMON = ["metric.resamples=100", "tracking.mode=disabled", "control=none", "scoring.dequantize=true"]


HEAD = (
    "Made by `make bench-memory`: main memory by `plan=true` and as taken, float32 on a CPU. Commands, or stages of them, that "
    "were not run are not in it. Estimates are those of the code that wrote the page, also beside what was taken before."
)


@dataclass(frozen=True)
class Case:
    """A command whose memory is measured."""

    model: str
    what: str
    overrides: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Where it runs."""
        return RUNS / f"{self.model}-{self.what}".replace(",", "").replace(" ", "-")


def cases() -> Iterator[Case]:
    """Yield the cases, those of small models first."""
    models = {
        "pocket-1m": ["model=pocket-1m"],
        "pocket-llama-1m": ["model=pocket-llama-1m"],
        "random opt-125m": ["model=local", f"model.path={MODELS / 'opt-125m'}", *FEW, *LARGE],
        "smollm2-135m": ["model=local", f"model.path={PROJECT / 'real_models' / 'smollm2-135m-instruct'}", *FEW, *LARGE],
    }
    for name, model in models.items():
        few = [*model, *FEW] if name.startswith("pocket") else model
        for quantizer, overrides in QUANTIZERS.items():
            yield Case(name, quantizer, [*few, *overrides])
        yield Case(name, "text", [*few, "quant=none", "task=none", "text=pocket"])
        yield Case(name, "from disk", [*few, "quant=none", *ON_DISK])
    yield Case("pocket-1m", "all questions", ["model=pocket-1m", "quant=none"])


def write_models() -> None:
    """Write the random model of OPT-125m's shape."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    if not (MODELS / "opt-125m").is_dir():
        OPTForCausalLM(OPTConfig(**OPT)).save_pretrained(MODELS / "opt-125m")
        AutoTokenizer.from_pretrained(PROJECT / "pocket" / "models" / "pocket-1m").save_pretrained(MODELS / "opt-125m")


def run(case: Case) -> None:
    """Run a case, unless it is done."""
    where = [f"hydra.run.dir={case.directory}", f"paths.store={case.directory / 'store'}"]
    if not (case.directory / "report.html").is_file():
        started = time.monotonic()
        subprocess.run(
            [sys.executable, str(PROJECT / "main.py"), *case.overrides, *COMMON, *where], check=True, stdout=subprocess.DEVNULL
        )
        print(f"{case.model}, {case.what}: {time.monotonic() - started:.0f} s", flush=True)


def on_page() -> dict[tuple[str, ...], int]:
    """Return what the page says was taken, bytes, by model, command and stage."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {tuple(row[:3]): int(row[4].replace(",", "")) * 10**6 for row in rows[2:]}


def stages(case: Case, earlier: dict[tuple[str, ...], int]) -> dict[str, tuple[int, int]]:
    """Return the estimate of each stage, made as if nothing were in the store, and the most that it took, bytes.

    earlier: as of `on_page`, for what is not in the store.
    """
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = [*case.overrides, *COMMON, f"paths.store={case.directory / 'store'}"]
        config = to_dataclasses(compose("config", overrides=given))
    memo, most = Memo(), dict[str, tuple[int, int]]()
    prepared = preparation.prepare(config, RUNS / "log", memo)
    preparation.load_tasks(prepared, memo)
    estimator = WorkEstimator(Store(RUNS / "nothing"), memo)
    for piece in pieces_of(prepared, config):
        stage = "quantizing" if piece.kind == "weights" else "scoring" if piece.is_baseline else "scoring quantized"
        if peak := taken(prepared.store.path(piece.kind, piece.made_from)) or earlier.get((case.model, case.what, stage)):
            numbers = estimator.estimate(piece).memory, peak
            estimate, taken_so_far = most.get(stage, numbers)
            most[stage] = max(numbers[0], estimate), max(peak, taken_so_far)
    return most


def taken(entry: Path) -> int | None:
    """Return the most memory that it took to make an entry of the store; None where it is not made."""
    proof = read_if_there(entry / PROOF, Quantization)
    cost = proof or (read_cost(entry) if entry.is_dir() else None)
    return cost.peak_memory_bytes if cost else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run those whose `model, command` has this in it")
    given = parser.parse_args()
    write_models()
    for case in cases():
        if given.only in f"{case.model}, {case.what}":
            run(case)
    lines = [
        HEAD,
        "",
        "| model | command | stage | estimate, MB | taken, MB | estimate / taken |",
        "| --- | --- | --- | --: | --: | --: |",
    ]
    earlier = on_page()
    for case in cases():
        known = case.directory.is_dir() or any(place[:2] == (case.model, case.what) for place in earlier)
        for stage, (estimate, peak) in stages(case, earlier).items() if known else ():
            numbers = f"{estimate / 1e6:,.0f} | {peak / 1e6:,.0f} | {estimate / peak:.2f}"
            lines.append(f"| {case.model} | {case.what} | {stage} | {numbers} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
