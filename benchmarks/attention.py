"""What attention of rows with shared beginnings could gain: one masked kernel, in parts, and nested.

Nested attention computes what a token attends to of the shared beginning and what it attends to of its own question by two
kernels without a mask as long as the row, and weighs the two by their sums of exponentials. `python -m benchmarks.attention`
prints the table of docs/scale.md: one block of the 1.3B shape, one thread, processor time; ratios within one run. It also
counts the operations of a block, each of which is a kernel to be launched on a GPU. `make bench-gpu` has the table of a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention as attend
from torch.profiler import ProfilerActivity, profile

from benchmarks.multiply_adds import timed
from bitsure.scoring.local.forward import score_trees
from bitsure.scoring.local.rows import trees

HEADS, HEAD, WIDTH, INNER = 16, 128, 2048, 5504  # a Llama of 1.3B
PART = 256  # tokens of a row whose attention is computed at once


@dataclass(frozen=True)
class Rows:
    """Equal rows: a shared beginning, and branches after it, each of a stem and its choices."""

    name: str
    rows: int
    shared: int
    branches: int
    stem: int
    choices: int
    choice: int

    @property
    def branch(self) -> int:
        """The tokens of a branch."""
        return self.stem + self.choices * self.choice

    @property
    def tokens(self) -> int:
        """The tokens of a row."""
        return self.shared + self.branches * self.branch

    def ends(self) -> torch.Tensor:
        """Return for each token one past the last token that attends to it, shape (tokens,)."""
        branch_ends = torch.arange(self.branches)[:, None] * self.branch + self.shared + self.branch
        stems = branch_ends.expand(-1, self.stem)
        choices = branch_ends - self.branch + self.stem + self.choice * (1 + torch.arange(self.choices))
        choices = choices.repeat_interleave(self.choice, dim=1)
        return torch.cat([torch.full((self.shared,), self.tokens), torch.cat([stems, choices], 1).flatten()])


ROWS = (
    Rows("ARC, 5 shared examples", 1, 250, 39, 25, 4, 5),
    Rows("HellaSwag", 12, 75, 4, 26, 0, 0),
    Rows("ARC", 20, 25, 4, 5, 0, 0),
)


def mask_of(ends: torch.Tensor) -> torch.Tensor:
    """Return the additive mask of tokens with these ends, shape (n, n)."""
    at = torch.arange(len(ends), device=ends.device)
    visible = (at <= at[:, None]) & (ends > at[:, None])
    return torch.zeros(visible.shape, device=ends.device).masked_fill_(~visible, torch.finfo(torch.float32).min)


def attend_with_sums(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, and the logarithms of its sums of exponentials, shape (rows, heads, queries)."""
    if q.is_cuda:
        out, sums, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True, 0.0, causal)
        return out, sums[..., : q.shape[2]]
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=mask)
    return out, sums


def ways(rows: Rows, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the ways to compute the attention of a block, and its linear layers."""
    q, k, v = (torch.randn(rows.rows, HEADS, rows.tokens, HEAD, dtype=dtype, device=device) for _ in range(3))
    ends = rows.ends().to(device)
    mask = mask_of(ends).to(dtype)[None, None].expand(rows.rows, 1, -1, -1)
    parts = []
    for first in range(0, rows.tokens, PART):
        queries = slice(first, min(first + PART, rows.tokens))
        keys = (ends[: queries.stop] > first).nonzero().flatten()
        parts.append((queries, keys, mask[:, :, queries, keys]))
    own_mask = mask_of(Rows("", 1, 0, 1, rows.stem, rows.choices, rows.choice).ends().to(device)).to(dtype)
    aligned = torch.nn.functional.pad(own_mask, (0, -rows.branch % 8))[:, : rows.branch]  # as a GPU's kernel wants it
    own_mask = aligned.expand(rows.rows * rows.branches, HEADS, -1, -1)
    x, inner = (torch.randn(rows.rows * rows.tokens, n, dtype=dtype, device=device) for n in (WIDTH, INNER))
    square, wide = (torch.randn(WIDTH, n, dtype=dtype, device=device) for n in (WIDTH, INNER))

    def in_parts() -> torch.Tensor:
        outs = [attend(q[:, :, some], k[:, :, keys], v[:, :, keys], part_mask) for some, keys, part_mask in parts]
        return torch.cat(outs, 2)

    def by_branch(values: torch.Tensor) -> torch.Tensor:
        cut = values[:, :, rows.shared :].unflatten(2, (rows.branches, rows.branch))
        return cut.transpose(1, 2).flatten(0, 1)

    def together(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (rows.rows, rows.branches)).transpose(1, 2).flatten(2, 3)

    def nested() -> torch.Tensor:
        before = [values[:, :, : rows.shared] for values in (q, k, v)]
        beginning, _ = attend_with_sums(*before, None, causal=True)
        shared, shared_sums = attend_with_sums(q[:, :, rows.shared :], *before[1:], None)
        own, own_sums = attend_with_sums(*map(by_branch, (q, k, v)), own_mask)
        share = torch.sigmoid(shared_sums - together(own_sums))[..., None].to(dtype)
        return torch.cat([beginning, together(own).lerp(shared, share)], 2)

    def linear() -> torch.Tensor:
        for weight in (square, square, square, square, wide, wide):
            x @ weight
        return inner @ wide.T

    return {"masked": lambda: attend(q, k, v, mask), "in parts": in_parts, "nested": nested, "linear layers": linear}


def operations_of_a_block() -> float:
    """Return how many operations PyTorch runs for each block of a Llama when a batch of rows is scored."""
    from transformers import LlamaConfig, LlamaForCausalLM

    requests, counts = {0: ([5, 6, 7], [8]), 1: ([5, 6, 9], [10, 11])}, []
    for blocks in (2, 4):
        config = LlamaConfig(
            num_hidden_layers=blocks, hidden_size=64, intermediate_size=96, num_attention_heads=4, vocab_size=99
        )
        model = LlamaForCausalLM(config).eval()
        score_trees(model, trees(requests, 64, 64), requests)  # tries the model
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            score_trees(model, trees(requests, 64, 64), requests)
        counts.append(sum(not event.cpu_children for event in profiler.events() if event.name not in VIEWS))
    return (counts[1] - counts[0]) / 2


VIEWS = {
    f"aten::{name}" for name in ("view", "as_strided", "transpose", "t", "slice", "unsqueeze", "expand", "select", "empty")
}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="how often each way is timed; the least counts")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    columns = ("rows", "tokens of a row", "in parts, of masked", "nested, of masked", "nested, of a block with parts")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for rows in ROWS:
        by_way = ways(rows, torch.device("cpu"), torch.float32)
        results = {name: run() for name, run in by_way.items()}
        turns = [{name: _processor_seconds(run) for name, run in by_way.items()} for _ in range(repeats)]
        seconds = {name: min(turn[name] for turn in turns) for name in by_way}
        apart = max((results[name] - results["masked"]).abs().max().item() for name in ("in parts", "nested"))
        assert apart < 1e-5, apart
        linear, in_parts, nested = seconds["linear layers"], seconds["in parts"], seconds["nested"]
        print(
            f"| {rows.name} | {rows.tokens:,} | {in_parts / seconds['masked']:.2f} | {nested / seconds['masked']:.2f} | "
            f"{(linear + nested) / (linear + in_parts):.3f} |"
        )
    print(f"\nA block of Llama takes {operations_of_a_block():.0f} operations a batch.")


def _processor_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


@torch.inference_mode()
def measure(rows: Rows, device: torch.device, dtype: torch.dtype, way: str) -> dict[str, float]:
    """Return a way's seconds, on a GPU the least of five, and how far its results are from those of one masked kernel."""
    by_way = ways(rows, device, dtype)
    result, masked = by_way[way](), by_way["masked"]()
    numbers = {"seconds": min(timed(by_way[way])[0] for _ in range(5 if device.type == "cuda" else 1))}
    return numbers if way == "linear layers" else numbers | {"largest difference": (result - masked).abs().max().item()}


if __name__ == "__main__":
    main()
