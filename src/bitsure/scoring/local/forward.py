"""One batch of rows through a model: the log-probability of every scored token.

`plain` is the reference: whole inputs, the model's own masks and positions, logits everywhere. `shared` runs trees: it
hands the model a mask and positions of our own and applies the output head only where something is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest

import torch

from bitsure.scoring.local import patches as on_the_way
from bitsure.scoring.local.rows import Request, Row

# Families whose models take a mask and positions as they are given; tests hold each to the plain path.
SHARING = (
    "opt",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "phi",
    "gemma",
    "stablelm",
    "falcon",
    "bloom",
)
TILE = {"cpu": 2**21, "cuda": 2**27}  # logits at once; a CPU's stay in its cache
LOGITS = {"cpu": 2**25, "cuda": 2**27}  # at once, where the head gives them for the whole vocabulary only

Part = tuple[int, Iterable[torch.Tensor]]  # n rows of logits, and these from left to right, in tiles (n, some)


@dataclass(frozen=True)
class Scored:
    """One continuation: a log-probability (nats) for each of its tokens, and whether each was the likeliest."""

    token_logprobs: list[float]
    greedy: bool

    @property
    def logprob(self) -> float:
        return sum(self.token_logprobs)


def input_device(model: torch.nn.Module) -> torch.device:
    """Where a model takes its inputs: from the CPU where accelerate brings its first weights only when they are needed."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def why_not_shared(model: torch.nn.Module, longest: int) -> str | None:
    """Why trees cannot be run through a model with inputs of up to `longest` tokens; None if they can."""
    config = model.config
    if config.model_type not in SHARING:
        return f"not tried with the family {config.model_type}"
    if model.get_output_embeddings() is None:
        return "the model has no output head of its own"
    if getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", "eager"):
        return f"the attention {config._attn_implementation} takes no mask of ours"
    if config.model_type == "falcon" and config.alibi:
        return "Falcon's ALiBi is part of its own mask"
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}  # transformers 5, 4
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return f"{rope['rope_type']} rotary positions depend on the batch's longest input"
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        return f"inputs of up to {longest} tokens do not fit the sliding window of {window}"
    return None


@torch.inference_mode()
def shared(model: torch.nn.Module, batch: Sequence[Row], requests: Mapping[int, Request]) -> dict[int, Scored]:
    """Score the requests of some trees; `Scored` by the request's number."""
    width = max(map(len, batch))
    ids, positions = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(2))
    sees = torch.eye(width, dtype=torch.bool).repeat(len(batch), 1, 1)  # padding sees itself: a softmax over nothing is NaN
    for i, row in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row.tokens)
        positions[i, : len(row)] = torch.tensor(row.positions)
        sees[i, : len(row), : len(row)] = torch.from_numpy(row.sees())
    nodes = sorted({i * width + node for i, row in enumerate(batch) for found in row.scored.values() for node in found})
    device, dtype = input_device(model), model.dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)[:, None].to(device)
    ids, positions = ids.to(device), positions.to(device)
    arguments = {"attention_mask": mask, "position_ids": positions}
    at = torch.tensor(nodes, device=device)
    with ExitStack() as stack:
        states = stack.enter_context(on_the_way.states_before_the_head(model, at))
        stack.enter_context(on_the_way.last_mlp_at(model, at))
        stack.enter_context(on_the_way.attention_in_parts(model, mask))
        stack.enter_context(on_the_way.rectified_in_place(model))
        if model.config.model_type == "bloom":
            stack.enter_context(on_the_way.bloom_sees(model, mask, positions))
            arguments = {}
        model(input_ids=ids, use_cache=False, **arguments)
    parts = _through_the_head(model.get_output_embeddings(), states[0], model.config.vocab_size)
    place = {node: k for k, node in enumerate(nodes)}
    wanted = {
        number: [place[i * width + node] for node in found]
        for i, row in enumerate(batch)
        for number, found in row.scored.items()
    }
    return _pick(parts, wanted, requests)


@torch.inference_mode()
def plain(model: torch.nn.Module, batch: Sequence[Row], requests: Mapping[int, Request]) -> dict[int, Scored]:
    """The same for rows that are chains."""
    width = max(map(len, batch))
    ids = torch.tensor([[*row.tokens, *[0] * (width - len(row))] for row in batch], device=input_device(model))
    logits = model(input_ids=ids, use_cache=False).logits
    scored: dict[int, Scored] = {}
    for row, row_logits in zip(batch, logits, strict=True):
        scored |= _pick([(len(row), _tiles(row_logits[: len(row)]))], row.scored, requests)
    return scored


def _through_the_head(head: torch.nn.Module, states: torch.Tensor, vocabulary: int) -> Iterator[Part]:
    """The logits of states (n, width), in parts.

    An ordinary head makes one part, a tile of the vocabulary at a time, all of them in one place: whole logits would be
    written to memory and read again. One whose weight is elsewhere, such as on disk, is called, so that accelerate brings it.
    """
    ordinary = type(head) is torch.nn.Linear and head.weight.device == states.device
    if ordinary and not head._forward_pre_hooks and not head._forward_hooks:
        yield len(states), _tiles_of_the_head(head, states)
        return
    for some in states.split(max(1, LOGITS.get(states.device.type, LOGITS["cpu"]) // vocabulary)):
        yield len(some), _tiles(head(some))


def _tiles_of_the_head(head: torch.nn.Linear, states: torch.Tensor) -> Iterator[torch.Tensor]:
    wide = _tile_width(states)
    place = states.new_empty(len(states) * wide)
    biases = [None] if head.bias is None else head.bias.split(wide)
    for weight, bias in zip_longest(head.weight.split(wide), biases):
        tile = place[: len(states) * len(weight)].view(len(states), len(weight))
        if bias is None:
            yield torch.mm(states, weight.T, out=tile)
        else:
            yield torch.addmm(bias, states, weight.T, out=tile)  # rounded once, as the head itself does


def _tiles(logits: torch.Tensor) -> Sequence[torch.Tensor]:
    """Logits (n, vocabulary) in tiles."""
    return logits.split(_tile_width(logits), dim=-1)


def _tile_width(rows: torch.Tensor) -> int:
    return max(1, TILE.get(rows.device.type, TILE["cpu"]) // max(1, len(rows)))


def _pick(parts: Iterable[Part], wanted: dict[int, list[int]], requests: Mapping[int, Request]) -> dict[int, Scored]:
    """The continuations' log-probabilities, from the logits' rows that `wanted` says predict a request's tokens."""
    rows = torch.tensor([k for found in wanted.values() for k in found])
    tokens = torch.tensor([token for i in wanted for token in requests[i][1]])
    logprobs, greedy = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
    start = 0
    for length, tiles in parts:
        inside = ((rows >= start) & (rows < start + length)).nonzero().flatten()
        if len(inside):
            logprobs[inside], greedy[inside] = _of_tokens(tiles, rows[inside] - start, tokens[inside])
        start += length
    logprobs, greedy = logprobs.tolist(), greedy.tolist()
    scored, start = {}, 0
    for i, found in wanted.items():
        end = start + len(found)
        scored[i] = Scored(logprobs[start:end], all(greedy[start:end]))
        start = end
    return scored


def _of_tokens(tiles: Iterable[torch.Tensor], rows: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probability of a token each in some rows of the logits, float32, and whether it is the likeliest.

    The tiles (n, some of the vocabulary) are used up. Of equal logits the first is the likeliest, as for argmax.
    """
    found = torch.full((len(rows),), torch.nan)  # a token that no tile has stays that, and is refused
    best_of_tile, where = torch.zeros(len(rows), dtype=torch.bool), torch.full_like(rows, -1)
    tops, norms, first = [], [], 0
    for number, tile in enumerate(tiles):
        tile = tile.float()
        top = tile.amax(-1, keepdim=True)
        inside = ((tokens >= first) & (tokens < first + tile.shape[1])).nonzero().flatten()
        if len(inside):
            theirs, places = rows[inside].to(tile.device), tokens[inside].to(tile.device) - first
            logits = tile[theirs, places]
            best = logits >= top[theirs, 0]
            best[best.clone()] = tile[theirs[best]].argmax(-1) == places[best]
            found[inside], best_of_tile[inside], where[inside] = logits.cpu(), best.cpu(), number
        tops.append(top)
        finite = top.clamp_min(torch.finfo(tile.dtype).min)  # of a tile that is −∞ throughout, as of a padded vocabulary
        norms.append(tile.sub_(finite).exp_().sum(-1, keepdim=True).log_().add_(finite))
        first += tile.shape[1]
    best_tile, norm = torch.cat(tops, 1).argmax(-1).cpu(), torch.cat(norms, 1).logsumexp(-1).cpu()
    return found - norm[rows], best_of_tile & (best_tile[rows] == where)
