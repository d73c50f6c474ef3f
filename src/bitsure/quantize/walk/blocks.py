"""Through a model block by block: one block at a time in fast memory, the hidden states of all windows kept between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks, linears

TOKENS_AT_ONCE = 2048  # that a block is run on
TILE = 256  # rows of a Gram matrix computed at once


@dataclass(frozen=True)
class Inputs:
    """What calibration says about the input x of a layer."""

    hessian: torch.Tensor  # (in, in) float32: the mean of x xᵀ over all tokens; GPTQ's H but for the factor 2
    tokens: int
    mean_abs: torch.Tensor | None = None  # (in,) float32: the mean of |x|, where it was asked for


class _Enough(Exception):
    """The layers of interest were reached; the rest of the block need not run."""


@dataclass(frozen=True)
class Feed:
    """Runs all windows through a block; `replay.finish` says which of its layers are final."""

    batches: list[torch.Tensor]  # hidden states
    run: Callable[[torch.Tensor], torch.Tensor]
    replay: Replay

    @torch.no_grad()
    def __call__(self) -> None:
        for states in self.batches:
            with suppress(_Enough):
                self.run(states)


@torch.no_grad()
def walk(model: nn.Module, windows: torch.Tensor) -> Iterator[tuple[str, nn.Module, Feed]]:
    """Yields each block's name, the block on the fast device, and what runs all windows through it.

    windows: (n, seqlen) token ids. When the next block is asked for, what this one then gives is what the next is fed, so
    that changes made to a block reach those after it.
    """
    prefix, blocks = find_blocks(model)
    size = max(1, TOKENS_AT_ONCE // windows.shape[1])
    while len(windows) % size:
        size -= 1  # batches of one size: masks and the like are made once
    hidden, calls, as_tuple = _enter(model, blocks, windows.split(size))
    home, fast = next(blocks.parameters()).device, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for number, (block, call) in enumerate(zip(blocks, calls, strict=True)):
        args, kwargs = _to(call, fast)
        block.to(fast)

        def run(states: torch.Tensor, block=block, args=args, kwargs=kwargs) -> torch.Tensor:
            out = block(states.to(fast), *args, **kwargs)
            return (out[0] if as_tuple else out).to(home)

        replay = Replay(block, hidden)
        try:
            yield f"{prefix}.{number}", block, Feed(hidden, run, replay)
            for i, states in enumerate(hidden):
                hidden[i] = run(states)  # in place: two lists of a large model's states would not fit
        finally:
            replay.forget()
            block.to(home)


def _enter(model: nn.Module, blocks: nn.ModuleList, batches: tuple[torch.Tensor, ...]) -> tuple[list, list, bool]:
    """The hidden states before the first block, each block's other arguments, and whether blocks return tuples.

    Blocks are replaced by stand-ins that pass on what they are given, and there is no head: this costs an embedding.
    """
    body = model.base_model
    hidden, calls = [], [None] * len(blocks)
    seen = []
    handle = blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(isinstance(output, tuple)))
    try:
        body(input_ids=batches[0][:1, :8].to(model.device), use_cache=False)
    finally:
        handle.remove()
    as_tuple = seen[0]

    def stand_in(number: int):
        def forward(*args, **kwargs):
            if args:
                states, args = args[0], args[1:]
            else:
                states = kwargs.pop("hidden_states")
            if number == 0:
                hidden.append(states)
            if calls[number] is not None and not _same(calls[number], (args, kwargs)):
                raise UserError(
                    f"The model's block {number} is called with other arguments for each text, besides its hidden states: "
                    "going through it block by block would give it the wrong ones."
                )
            calls[number] = (args, kwargs)
            return (states,) if as_tuple else states

        return forward

    for number, block in enumerate(blocks):
        block.forward = stand_in(number)
    try:
        for batch in batches:
            body(input_ids=batch.to(model.device), use_cache=False)
    finally:
        for block in blocks:
            del block.forward
    return hidden, calls, as_tuple


def layers_by_input(
    block: nn.Module, feed: Callable[[], None], known: dict[str, list[list[str]]] | None = None
) -> list[dict[str, nn.Module]]:
    """A block's linear layers in the order they run, those that read the very same input together.

    known: what was found in blocks before, by their structure: blocks of one structure are run once. It is added to.
    """
    layers = linears(block)
    if known is not None and repr(block) in known:
        return [{name: layers[name] for name in group} for group in known[repr(block)]]
    groups: dict[int, dict[str, nn.Module]] = {}
    kept, called = [], set()

    def watch(name: str):
        def hook(module, inputs):
            if name not in called:
                called.add(name)
                kept.append(inputs[0])  # alive, so that its id stays its own
                groups.setdefault(id(inputs[0]), {})[name] = module
            if len(called) == len(layers):
                raise _Enough

        return hook

    with _hooks({module: watch(name) for name, module in layers.items()}):
        feed()
    _check_reached(sorted(set(layers) - called))
    if known is not None:
        known[repr(block)] = [list(group) for group in groups.values()]
    return list(groups.values())


def _check_reached(idle: list[str]) -> None:
    if idle:
        raise UserError(f"No calibration token reached {', '.join(idle)}: give more or other text (calib.nsamples).")


def measure(groups: list[dict[str, nn.Module]], feed: Callable[[], None], means: bool = False) -> list[Inputs]:
    """The statistics of the input of each group of layers, in the order in which they run; with `means`, mean |x| too."""
    grams: list[torch.Tensor | None] = [None] * len(groups)
    absolute: list[torch.Tensor | None] = [None] * len(groups)
    tokens = [0] * len(groups)

    def watch(number: int):
        def hook(module, inputs):
            x = inputs[0].detach().flatten(0, -2).float()
            if tokens[number] == 0:
                grams[number], absolute[number] = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1])
            _add_gram(grams[number], x)
            if means:
                absolute[number] += x.abs().sum(0)
            tokens[number] += len(x)
            if number == len(groups) - 1:
                raise _Enough

        return hook

    with _hooks({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for group, n in zip(groups, tokens, strict=True) if not n for name in group])
    return [
        Inputs(_mirrored(gram).div_(n), n, total / n if means else None)
        for gram, total, n in zip(grams, absolute, tokens, strict=True)
    ]


def channel_ranges(groups: list[dict[str, nn.Module]], feed: Callable[[], None]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The lowest and the highest value of each input channel, (in,) float32 both, of each group of layers in their order."""
    found: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(groups)

    def watch(number: int):
        def hook(module, inputs):
            x = inputs[0].detach().flatten(0, -2).float()
            if len(x):  # an expert may be given no token
                low, high = x.amin(0), x.amax(0)  # torch.aminmax takes ten times as long
                if found[number] is not None:
                    low, high = torch.minimum(low, found[number][0]), torch.maximum(high, found[number][1])
                found[number] = low, high
            if number == len(groups) - 1:
                raise _Enough

        return hook

    with _hooks({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for group, one in zip(groups, found, strict=True) if one is None for name in group])
    return found


class _hooks:
    """Forward pre-hooks that are there for the length of a with block."""

    def __init__(self, hooks: dict[nn.Module, Callable]):
        self.handles = [module.register_forward_pre_hook(hook) for module, hook in hooks.items()]

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        for handle in self.handles:
            handle.remove()


def _add_gram(total: torch.Tensor, x: torch.Tensor) -> None:
    """Add xᵀx to the lower triangle of `total`, some of its rows at a time: half the work of a full product."""
    for start in range(0, x.shape[1], TILE):
        end = start + TILE
        total[start:end, :end].addmm_(x[:, start:end].T, x[:, :end])


def _mirrored(lower: torch.Tensor) -> torch.Tensor:
    above = lower.tril(-1).T
    return lower.tril_().add_(above)


def _same(one, other) -> bool:
    """Whether two calls' arguments are equal, tensors by their values."""
    match one:
        case torch.Tensor():
            return isinstance(other, torch.Tensor) and torch.equal(one, other)
        case tuple() | list():
            return len(one) == len(other) and all(map(_same, one, other))
        case dict():
            return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
        case bool() | int() | float() | str() | None:
            return one == other
    return type(one) is type(other)


def _to(value, device: torch.device):
    """Tensors on a device, also those inside tuples, lists and dicts."""
    match value:
        case torch.Tensor():
            return value.to(device)
        case tuple() | list():
            return type(value)(_to(one, device) for one in value)
        case dict():
            return {key: _to(one, device) for key, one in value.items()}
    return value
