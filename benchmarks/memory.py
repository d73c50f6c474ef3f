"""Memory that runs take, beside the estimates of `plan=true`: `make bench-memory` writes benchmarks/memory.md.

Each case is a command of its own with a store of its own, in multirun/memory; one that is done there is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.paths import PROJECT
from bitsure.config.validation import to_dataclasses
from bitsure.results import Costs, read
from bitsure.run import preparation
from bitsure.sweep.launch.dry_run import pieces_of
from bitsure.sweep.launch.estimate import WorkEstimator

HERE = Path(__file__).parent
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


def taken(case: Case) -> dict[str, int]:
    """Return the most memory that each stage held, bytes."""
    costs = read(case.directory / "costs.json", Costs)
    stages = {
        "quantizing": costs.quantizing,
        "scoring": costs.scoring_full_precision,
        "scoring quantized": costs.scoring_quantized,
    }
    return {name: cost.peak_memory_bytes for name, cost in stages.items() if cost and cost.peak_memory_bytes}


def estimated(case: Case) -> dict[str, int]:
    """Return the estimate of each stage, bytes, with nothing in the store."""
    from hydra import compose, initialize_config_dir

    from bitsure.config import schema
    from bitsure.config.paths import CONF

    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = to_dataclasses(compose("config", overrides=[*case.overrides, *COMMON, f"paths.store={RUNS / 'nothing'}"]))
    memo, most = Memo(), dict[str, int]()
    prepared = preparation.prepare(config, RUNS / "log", memo)
    preparation.load_tasks(prepared, memo)
    estimator = WorkEstimator(Store(RUNS / "nothing"), memo)
    for piece in pieces_of(prepared, config):
        stage = "quantizing" if piece.kind == "weights" else "scoring" if piece.is_baseline else "scoring quantized"
        most[stage] = max(most.get(stage, 0), estimator.estimate(piece).memory)
    return most


def rows() -> Iterator[tuple[str, str, str, int, int]]:
    """Yield model, command, stage, estimate and what was taken, of the cases that are done."""
    for case in cases():
        if (case.directory / "report.html").is_file():
            estimates, peaks = estimated(case), taken(case)
            for stage, peak in peaks.items():
                yield case.model, case.what, stage, estimates[stage], peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run those whose `model, command` has this in it")
    given = parser.parse_args()
    write_models()
    for case in cases():
        if given.only in f"{case.model}, {case.what}":
            run(case)
    lines = [
        "| model | command | stage | estimate, MB | taken, MB | estimate / taken |",
        "| --- | --- | --- | --: | --: | --: |",
    ]
    for model, what, stage, estimate, peak in rows():
        lines.append(f"| {model} | {what} | {stage} | {estimate / 1e6:,.0f} | {peak / 1e6:,.0f} | {estimate / peak:.2f} |")
    print("\n".join(lines))
    if not given.only:
        (HERE / "memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
