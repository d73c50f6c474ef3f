"""The arithmetic of scoring: multiply-adds that requests need, and the rate at which a machine does them."""

from __future__ import annotations

import time

import torch

from bitsure.scoring.requests import Request, input_tokens


def least_multiply_adds(model: torch.nn.Module, requests: list[Request]) -> float:
    """Of every distinct prefix once through the blocks, attention included, and of the rest where something is scored."""
    prefixes = {tuple(input_tokens(r)[:n]) for r in requests for n in range(1, len(input_tokens(r)) + 1)}
    scored = {tuple((r[0] + r[1])[: len(r[0]) + i]) for r in requests for i in range(len(r[1]))}
    return multiply_adds(model, [len(prefix) for prefix in prefixes], [len(ends) for ends in scored])


def multiply_adds_of_hflm(model: torch.nn.Module, requests: list[Request]) -> float:
    """Of every distinct input whole, with the head at each of its tokens; padding left out."""
    lengths = [len(ids) for ids in {tuple(input_tokens(r)) for r in requests}]
    places = [place for n in lengths for place in range(1, n + 1)]
    return multiply_adds(model, places, places)


def multiply_adds(model: torch.nn.Module, places: list[int], scored: list[int]) -> float:
    """Of tokens at these places, counted from 1, of which some are scored: the last block makes keys and values of all, and
    the rest, as the head does, of those alone.
    """
    config = model.config
    blocks = {name: p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name}
    last = f"layers.{config.num_hidden_layers - 1}."
    at_the_end = sum(n for name, n in blocks.items() if last in name and ".k_proj." not in name and ".v_proj." not in name)
    attention = 2 * config.hidden_size * ((config.num_hidden_layers - 1) * sum(places) + sum(scored))
    head = config.hidden_size * config.vocab_size
    return len(places) * (sum(blocks.values()) - at_the_end) + attention + len(scored) * (at_the_end + head)


def multiply_adds_per_second(model: torch.nn.Module) -> float:
    """Of the largest matrix product in the model's blocks, with 1,024 tokens; the best of ten."""
    weight = max((p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n), key=torch.Tensor.numel)
    tokens = torch.randn(1024, weight.shape[1], dtype=weight.dtype, device=weight.device)
    with torch.inference_mode():
        return max(1024 * weight.numel() / timed(lambda: tokens @ weight.T)[0] for _ in range(10))


def timed(work) -> tuple[float, object]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result
