"""What cancelling the offset of rounding costs and gains on SmolLM2-135M, by layer and by position in the text.

`make bench-offsets` prints the table and writes benchmarks/offsets.md. The offset is the mean of a layer's output error over
1,536 tokens of C4; KL is measured on 512 others. It needs `make real-models` and a file of text.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from torch import nn

from benchmarks.error_lab import KINDS, RTN, SEQLEN, cut, exact_first, input_of, kind
from bitsure.base.files import write_text
from bitsure.config.paths import PROJECT
from bitsure.models.load import load_model
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn

HOW = ("rtn", "rtn-bias", "rtn, first token exact", "rtn-bias, first token exact")  # the last two of v_proj alone
POSITIONS = ((0, 16), (16, 64), (64, SEQLEN))
DOCUMENTS, WINDOWS = 40, 3


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=PROJECT / "real_models/smollm2-135m-instruct")
    parser.add_argument("--parts", nargs="+", default=[*KINDS, "all"], help="kinds of layers, each rounded alone")
    parser.add_argument("--text", type=Path, default=Path("../shared/text/c4-and-common-crawl-sample.jsonl"))
    given = parser.parse_args()
    model, tokenizer = load_model(given.model, "float32", "cpu")
    texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").splitlines()]
    held_out, *windows = cut(texts[:DOCUMENTS], tokenizer)[: WINDOWS + 1]
    layers = {name: layer for name, layer in model.named_modules() if kind(name) in KINDS}
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    means = mean_inputs(model, layers, windows)

    def logprobs() -> torch.Tensor:
        return model(held_out[None], use_cache=False).logits[0].log_softmax(-1)

    full, rows = logprobs(), []
    for part, name in itertools.product(given.parts, HOW):
        if name in HOW[:2] or part == "v_proj":
            handles = []
            for layer in (each for each in layers if part in ("all", kind(each))):
                weight = round_to_nearest(original[layer], Rtn(**RTN)).dequantize()
                layers[layer].weight.data.copy_(weight)
                if "bias" in name:
                    layers[layer].bias = nn.Parameter((original[layer] - weight) @ means[input_of(layer)])
                if "exact" in name:
                    handles.append(layers[layer].register_forward_hook(exact_first(original[layer])))
            now = logprobs()
            for handle in handles:
                handle.remove()
            kl = (full.exp() * (full - now)).sum(-1)
            nll = -now[:-1].gather(1, held_out[1:, None]).mean()
            by_position = [f"{kl[low:high].mean():.3f}" for low, high in POSITIONS]
            rows.append([part, name, f"{kl.mean():.4f}", *by_position, f"{nll:.4f}"])
            print(rows[-1], flush=True)
            for layer, module in layers.items():
                module.weight.data.copy_(original[layer])
                module.bias = None
    write_text(Path(__file__).with_suffix(".md"), page(rows, given.model.name, full, held_out))


def mean_inputs(model: nn.Module, layers: dict[str, nn.Module], windows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean input of layers over the tokens of windows, (in,)."""
    sums: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            sums[name] = sums.get(name, 0) + inputs[0].flatten(0, -2).sum(0)

        return hook

    handles = [layers[name].register_forward_pre_hook(watch(name)) for name in sorted({input_of(name) for name in layers})]
    for ids in windows:
        model.model(ids[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: total / (WINDOWS * SEQLEN) for name, total in sums.items()}


def page(rows: list[list[str]], model: str, full: torch.Tensor, held_out: torch.Tensor) -> str:
    nll = -full[:-1].gather(1, held_out[1:, None]).mean()
    head = ["rounded", "how", "KL", *(f"tokens {low + 1} to {high}" for low, high in POSITIONS), "NLL"]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"Made by `make bench-offsets`: {model}, {SEQLEN} tokens of C4. Full precision: NLL {nll:.4f}.\n\n{table}"


if __name__ == "__main__":
    main()
