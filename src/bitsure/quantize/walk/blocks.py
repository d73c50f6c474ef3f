"""Going through a model block by block: one block at a time in fast memory, the hidden states of all windows kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.base.resources import free_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.models.offloading import weights_in_memory
from bitsure.quantize.refusals import not_quantizable
from bitsure.quantize.walk.expert_inputs import idle_experts_reached, on_demand, on_device
from bitsure.quantize.walk.mixtures import in_experts
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks

log = logging.getLogger(__name__)

TOKENS_AT_ONCE = 2048  # a batch of a block's inputs
STATES_SHARE = 0.25  # of a GPU's free memory, that the hidden states of all windows may take: otherwise each pass copies them

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a block, without its hidden states


class EnoughError(Exception):
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
    """Whether the block itself returns its output in a tuple or list."""

    @torch.no_grad()
    def __call__(self) -> None:
        """Run all batches through the block."""
        for states in self.batches:
            with suppress(EnoughError):
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
        log.info("%s's own error", type(model).__name__, exc_info=error)
        raise not_quantizable(
            "The model's blocks cannot be gone through one by one, because its code fails where they only hand on hidden "
            f"states ({in_one_line(error)}). Nothing here can be quantized."
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
    """Return the hidden states before the first block, each block's other arguments, and whether blocks return tuples or lists.

    Blocks are replaced by stand-ins that return their input, and there is no head, so that this costs an embedding.
    """
    body = model.base_model
    hidden: list[torch.Tensor] = []
    calls: dict[int, Call] = {}
    device = torch.device("cpu") if model.device.type == "meta" else model.device  # that of the first weights, maybe on disk
    size = _size_of_output(body, blocks, batches[0][:1, :8].to(device))

    def stand_in(number: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if args:
                states, args = args[0], args[1:]
            else:
                states = kwargs.pop("hidden_states")
            if number == 0:
                hidden.append(states)
            if number in calls and not _same(calls[number], (args, kwargs)):
                raise not_quantizable(
                    f"The model's block {number} is called with other arguments for each text, besides its hidden states: "
                    "going through it block by block would give it the wrong ones."
                )
            calls[number] = (args, kwargs)
            return (states, *[None] * (size - 1)) if size else states

        return forward

    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            if own := vars(block).get("forward"):  # accelerate's, of a block that has weights of its own on disk
                stack.callback(setattr, block, "forward", own)
            else:
                stack.callback(delattr, block, "forward")
            block.forward = stand_in(number)
        for batch in batches:
            body(input_ids=batch.to(device), use_cache=False)
    return hidden, [calls[number] for number in range(len(blocks))], bool(size)


def _size_of_output(body: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor) -> int:
    """Return how many values a block returns in a tuple or list, 0 for neither. Raises UserError if the next reads others."""
    outputs: list[Any] = []

    def check(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        others = [value for value in (outputs[0][1:] if isinstance(outputs[0], tuple | list) else ()) if value is not None]
        if any(value is other for value in (*args, *kwargs.values()) for other in others):
            raise not_quantizable(
                "The model's blocks give each other more than hidden states, which going through them one by one would lose: "
                "nothing here can be quantized."
            )

    def stop(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        raise EnoughError

    handles = [blocks[0].register_forward_hook(lambda block, inputs, output: outputs.append(output))]
    handles += [block.register_forward_pre_hook(check, with_kwargs=True) for block in blocks[1:2]]
    handles += [block.register_forward_pre_hook(stop) for block in blocks[2:3]]  # Those after it may be on disk.
    try:
        with suppress(EnoughError):
            body(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return len(outputs[0]) if isinstance(outputs[0], tuple | list) else 0


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
