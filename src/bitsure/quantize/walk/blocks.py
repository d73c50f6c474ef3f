"""Going through a model block by block: one block at a time in fast memory, the hidden states of all windows kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.base.resources import free_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.models.offloading import weights_in_memory
from bitsure.quantize.walk.expert_inputs import idle_experts_reached, on_demand, on_device
from bitsure.quantize.walk.mixtures import in_experts
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import dense_linears, find_blocks, not_reached

TOKENS_AT_ONCE = 2048  # a batch of a block's inputs
TILE = 256  # rows of a Gram matrix that are computed at once
STATES_SHARE = 0.25  # of a GPU's free memory, that the hidden states of all windows may take: otherwise each pass copies them

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a block, without its hidden states
Hook = Callable[[nn.Module, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Inputs:
    """Statistics of the input x of a layer on calibration text."""

    hessian: torch.Tensor
    """The mean of x xᵀ over all tokens, (in, in) float32; GPTQ's H but for the factor 2."""
    tokens: int
    """Tokens that reached the layer."""
    mean_abs: torch.Tensor | None = None
    """The mean of |x|, (in,) float32; None unless it was requested."""


class _EnoughError(Exception):
    """The layers of interest were reached, so that the rest of the block need not run."""


@dataclass(frozen=True)
class Feed:
    """All windows, ready to run through one block as often as needed."""

    batches: list[torch.Tensor]
    """Hidden states, (windows, seqlen, hidden) each."""
    run: Callable[[torch.Tensor], torch.Tensor]
    """Runs the block on one batch and returns its output."""
    replay: Replay
    """Keeps the outputs of layers that `replay.finish` has declared final."""
    as_tuple: bool = False
    """Whether the block itself returns its output in a tuple."""

    @torch.no_grad()
    def __call__(self) -> None:
        """Run all batches through the block."""
        for states in self.batches:
            with suppress(_EnoughError):
                self.run(states)


@torch.no_grad()
def walk(model: nn.Module, windows: torch.Tensor, reach_all: bool = False) -> Iterator[tuple[str, nn.Module, Feed]]:
    """Go through a model's blocks in their order.

    When the next block is requested, the current one computes its inputs, so that changes to a block reach those after it. Of a
    mixture's experts one at a time is on the fast device.

    Args:
        model: The model.
        windows: Token ids, shape (n, seqlen).
        reach_all: Whether experts that no token is routed to are given the last batch, so that hooks of their layers run.

    Yields:
        Each block's name, the block on the fast device, and what runs all windows through it.
    """
    prefix, blocks = find_blocks(model)
    size = max(1, TOKENS_AT_ONCE // windows.shape[1])
    while len(windows) % size:
        size -= 1  # With batches of one size masks and the like are computed once.
    try:
        hidden, calls, as_tuple = _enter(model, blocks, torch.split(windows, size))
    except BUILD_ERRORS as error:  # of a family whose blocks do not simply follow each other
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"The model's blocks cannot be gone through one by one ({in_one_line(error)}): nothing here can be quantized."
        ) from error
    home, fast = hidden[0].device, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if fast != home and sum(map(_bytes, hidden)) <= STATES_SHARE * free_memory(fast):
        hidden[:] = [states.to(fast, non_blocking=True) for states in hidden]
    for number, (block, call) in enumerate(zip(blocks, calls, strict=True)):
        args, kwargs = _to(call, fast)
        with weights_in_memory(block), _block_on(block, fast):
            run = runner(block, (args, kwargs), fast, as_tuple)
            replay = Replay(block, hidden)
            try:
                yield f"{prefix}.{number}", block, Feed(hidden, run, replay, as_tuple)
                with idle_experts_reached(block) if reach_all else nullcontext():
                    for i, states in enumerate(hidden):
                        hidden[i] = run(states)  # In place: two lists of a large model's states would not fit.
            finally:
                replay.forget()


@contextmanager
def _block_on(block: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a block on a device for the length of the `with` block, each of its experts only while it runs."""
    home, inside = next(block.parameters()).device, in_experts(block)
    dense = [module for name, module in block.named_modules() if not f"{name}.".startswith(inside)]

    def move(to: torch.device) -> None:
        for module in dense:
            module._apply(partial(on_device, device=to), recurse=False)

    try:
        move(device)
        with on_demand(block, device):
            yield
    finally:
        move(home)


def _bytes(states: torch.Tensor) -> int:
    return states.numel() * states.element_size()


def runner(block: nn.Module, call: Call, fast: torch.device, as_tuple: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what runs a module on a device with these arguments, and its output back to where the hidden states are."""
    args, kwargs = call

    def run(states: torch.Tensor) -> torch.Tensor:
        out = block(states.to(fast), *args, **kwargs)
        result: torch.Tensor = (out[0] if as_tuple else out).to(states.device)
        return result

    return run


def _enter(model: Any, blocks: nn.ModuleList, batches: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[Call], bool]:
    """Return the hidden states before the first block, each block's other arguments, and whether blocks return tuples.

    Blocks are replaced by stand-ins that return their input, and there is no head, so that this costs an embedding.
    """
    body = model.base_model
    hidden: list[torch.Tensor] = []
    calls: dict[int, Call] = {}
    size = _size_of_output(body, blocks, batches[0][:1, :8].to(model.device))

    def stand_in(number: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if args:
                states, args = args[0], args[1:]
            else:
                states = kwargs.pop("hidden_states")
            if number == 0:
                hidden.append(states)
            if number in calls and not _same(calls[number], (args, kwargs)):
                raise UserError(
                    f"The model's block {number} is called with other arguments for each text, besides its hidden states: "
                    "going through it block by block would give it the wrong ones."
                )
            calls[number] = (args, kwargs)
            return (states, *[None] * (size - 1)) if size else states

        return forward

    for number, block in enumerate(blocks):
        block.forward = stand_in(number)
    try:
        for batch in batches:
            body(input_ids=batch.to(model.device), use_cache=False)
    finally:
        for block in blocks:
            del block.forward
    return hidden, [calls[number] for number in range(len(blocks))], bool(size)


def _size_of_output(body: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor) -> int:
    """Return how many values a block returns in a tuple; 0 for no tuple. Raises UserError if the next one reads another."""
    outputs: list[Any] = []

    def check(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        others = [value for value in (outputs[0][1:] if isinstance(outputs[0], tuple) else ()) if value is not None]
        if any(value is other for value in (*args, *kwargs.values()) for other in others):
            raise UserError(
                "The model's blocks give each other more than hidden states, which going through them one by one would lose."
            )

    def stop(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        raise _EnoughError

    handles = [blocks[0].register_forward_hook(lambda block, inputs, output: outputs.append(output))]
    handles += [block.register_forward_pre_hook(check, with_kwargs=True) for block in blocks[1:2]]
    handles += [block.register_forward_pre_hook(stop) for block in blocks[2:3]]  # Those after it may be on disk.
    try:
        with suppress(_EnoughError):
            body(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return len(outputs[0]) if isinstance(outputs[0], tuple) else 0


def layers_by_input(
    block: nn.Module, feed: Callable[[], None], known: dict[str, list[list[str]]] | None = None
) -> list[dict[str, nn.Module]]:
    """Return a block's dense linear layers in the order in which they run, those that read the very same input together.

    Args:
        block: The block.
        feed: Runs text through it.
        known: The layers' names in earlier blocks, by structure: of blocks of one structure only the first is run.
            The result is added to it.
    """
    layers = dense_linears(block)
    if known is not None and repr(block) in known:
        return [{name: layers[name] for name in group} for group in known[repr(block)]]
    groups: dict[int, dict[str, nn.Module]] = {}
    kept: list[torch.Tensor] = []
    called: set[str] = set()

    def watch(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if name not in called:
                called.add(name)
                kept.append(inputs[0])  # Kept alive: its id must stay its own.
                groups.setdefault(id(inputs[0]), {})[name] = module
            if len(called) == len(layers):
                raise _EnoughError

        return hook

    with _hooked({module: watch(name) for name, module in layers.items()}):
        feed()
    _check_reached(sorted(set(layers) - called))
    if known is not None:
        known[repr(block)] = [list(group) for group in groups.values()]
    return list(groups.values())


def _check_reached(idle: list[str]) -> None:
    if idle:
        raise not_reached(idle)


def measure(groups: list[dict[str, nn.Module]], feed: Callable[[], None], means: bool = False) -> list[Inputs]:
    """Return the statistics of the input of each group of layers, in the order in which they run; `means`: mean |x| too."""
    grams: dict[int, torch.Tensor] = {}
    absolute: dict[int, torch.Tensor] = {}
    tokens = [0] * len(groups)

    def watch(number: int) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if tokens[number] == 0:
                grams[number], absolute[number] = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1])
            _add_gram(grams[number], x)
            if means:
                absolute[number] += x.abs().sum(0)
            tokens[number] += len(x)
            if number == len(groups) - 1:
                raise _EnoughError

        return hook

    with _hooked({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for group, n in zip(groups, tokens, strict=True) if not n for name in group])
    return [
        Inputs(_mirrored(grams[number]).div_(n), n, absolute[number] / n if means else None) for number, n in enumerate(tokens)
    ]


def channel_ranges(groups: list[dict[str, nn.Module]], feed: Callable[[], None]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the lowest and the highest value of each input channel, (in,) float32 both, of each group in its order."""
    ranges: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(number: int) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if len(x):  # An expert may be given no token.
                low, high = x.amin(0), x.amax(0)  # torch.aminmax takes ten times as long.
                if number in ranges:
                    low, high = torch.minimum(low, ranges[number][0]), torch.maximum(high, ranges[number][1])
                ranges[number] = low, high
            if number == len(groups) - 1:
                raise _EnoughError

        return hook

    with _hooked({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for number, group in enumerate(groups) if number not in ranges for name in group])
    return [ranges[number] for number in range(len(groups))]


@contextmanager
def _hooked(hooks: dict[nn.Module, Hook]) -> Iterator[None]:
    """Give modules forward pre-hooks for the length of the `with` block."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_gram(total: torch.Tensor, x: torch.Tensor) -> None:
    """Add xᵀx to the lower triangle of `total`, some of its rows at a time: half the work of a full product."""
    for start in range(0, x.shape[1], TILE):
        end = start + TILE
        total[start:end, :end].addmm_(x[:, start:end].T, x[:, :end])


def _mirrored(lower: torch.Tensor) -> torch.Tensor:
    above = lower.tril(-1).T
    return lower.tril_().add_(above)


def _same(first: Any, second: Any) -> bool:
    """Return whether two calls' arguments are equal, tensors by their values."""
    match first:
        case torch.Tensor():
            return isinstance(second, torch.Tensor) and torch.equal(first, second)
        case tuple() | list():
            return len(first) == len(second) and all(map(_same, first, second))
        case dict():
            return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
        case bool() | int() | float() | str() | None:
            return bool(first == second)
    return type(first) is type(second)


def _to(value: Any, device: torch.device) -> Any:
    """Return a value with its tensors on a device, also those inside tuples, lists and dicts."""
    match value:
        case torch.Tensor():
            return value.to(device)
        case tuple() | list():
            return type(value)(_to(inner, device) for inner in value)
        case dict():
            return {key: _to(inner, device) for key, inner in value.items()}
    return value
