"""Time fidelity over the whole vocabulary beside plain forward passes of both models: benchmarks/fidelity.md.

A random model of OPT-125m's shape stands for full precision, and the same rounded to bfloat16 for a quantized one. One thread
runs, and its processor time counts, so that what else the machine does disturbs little.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from bitsure.scoring.texts.kept_states import STATES_FILE, KeptStates, writing_states
from bitsure.scoring.texts.text_pass import FullModel, KeptFullModel, TextModel
from bitsure.scoring.texts.tokenized_text import TextWindow

WINDOW = 512


def main() -> None:
    """Run each way several times, in turn, and print the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=2, help="windows of 512 tokens")
    parser.add_argument("--repeats", type=int, default=2, help="how often each way is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    full = OPTForCausalLM(OPTConfig()).eval()
    quantized = copy.deepcopy(full)
    with torch.no_grad():
        for weight in quantized.parameters():
            weight.copy_(weight.bfloat16())
    windows = random_windows(arguments.windows, full.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        by_name = ways(full, quantized, windows, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in by_name}
        for _ in range(arguments.repeats):
            for name, run in by_name.items():
                started = time.process_time()
                run()
                seconds[name].append(time.process_time() - started)
        size = (Path(folder) / STATES_FILE).stat().st_size
    _print(seconds, sum(len(window.scored) for window in windows), size)


def random_windows(count: int, vocabulary: int) -> list[TextWindow]:
    """Return windows of random tokens."""
    rng = np.random.default_rng(0)
    nothing = np.zeros(WINDOW - 1, dtype=np.int64)
    return [TextWindow(rng.integers(4, vocabulary, WINDOW), 1, nothing, nothing, nothing) for _ in range(count)]


def ways(
    full: OPTForCausalLM, quantized: OPTForCausalLM, windows: list[TextWindow], folder: Path
) -> dict[str, Callable[[], None]]:
    before, after, shell = TextModel(full), TextModel(quantized), copy.deepcopy(full)
    n = len(before.next_batch(windows))
    batches = [windows[first : first + n] for first in range(0, len(windows), n)]
    return {
        "plain passes of both, with heads": lambda: _plain((full, quantized), batches),
        "full precision, its states kept": lambda: _keep(before, batches, folder),
        "quantized, beside kept states": lambda: _score(after, batches, KeptFullModel(shell, KeptStates(folder))),
        "quantized, full precision run again": lambda: _score(after, batches, before),
    }


@torch.inference_mode()
def _plain(models: Sequence[OPTForCausalLM], batches: Sequence[Sequence[TextWindow]]) -> None:
    for model in models:
        for batch in batches:
            ids = torch.from_numpy(np.stack([window.tokens for window in batch]))
            model(input_ids=ids.to(model.device), use_cache=False)


def _keep(model: TextModel, batches: Sequence[Sequence[TextWindow]], folder: Path) -> None:
    with writing_states(folder) as keep:
        for batch in batches:
            states = model.states(batch)
            keep.write(states)
            model.score(batch, states)


def _score(model: TextModel, batches: Sequence[Sequence[TextWindow]], full: FullModel) -> None:
    for batch in batches:
        model.score(batch, model.states(batch), full)


def _print(seconds: dict[str, list[float]], tokens: int, size: int) -> None:
    least = {name: min(times) for name, times in seconds.items()}
    plain, first, kept, again = least.values()
    print(f"| {tokens:,} tokens | seconds of one thread, least |\n|---|---|")
    for name, value in least.items():
        print(f"| {name} | {value:.2f} |")
    print(f"\nFull precision and one quantizer take {(first + kept) / plain:.2f} times the plain passes of both;")
    print(
        f"each further quantizer takes {2 * kept / plain:.2f} times its own plain pass, without states {2 * again / plain:.2f}."
    )
    print(f"The states take {size / tokens:,.0f} bytes a token, logits of 16 bits {2 * OPTConfig().vocab_size:,}.")


if __name__ == "__main__":
    main()
