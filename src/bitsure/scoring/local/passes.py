"""Ways to run requests: what lays their rows out in batches, and what runs a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitsure.scoring.journal import Limits
from bitsure.scoring.local import forward, state_copies
from bitsure.scoring.local.padding import pad, rows_padded_together
from bitsure.scoring.local.rows import TreeRow, batches, chains, trees
from bitsure.scoring.local.trial import RunBatch
from bitsure.scoring.requests import Requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Ways to share prefixes, the fastest first → what the log says of them.
WAYS = {
    "trees": "prefixes are shared",
    "copies": "prefixes are shared by copies of the model's state after them",
    "tokens": "prefixes are shared by copies of the model's state, from which one token is read at a time",
}


@dataclass(frozen=True)
class Passes:
    """A way to run requests."""

    run: RunBatch
    """Scores the requests of a batch."""
    lay_out: Callable[[Requests, Limits], list[list[TreeRow]]]
    """Returns batches of rows, the longest rows first, given requests and the limits of a batch."""


def sharing(way: str, width: int) -> Passes:
    """Return a way to run requests whose prefixes are shared.

    Args:
        way: One of WAYS.
        width: The width of the model's hidden states.
    """
    if way == "trees":
        return Passes(forward.score_trees, lambda some, most: batches(trees(some, width, most.shared), most.shared))
    run = state_copies.score_copies if way == "copies" else state_copies.score_copies_by_token
    # A row is read part by part, so that attention is not quadratic in it: rows are as long as they may be.
    return Passes(run, lambda some, most: batches(trees(some, most.shared, most.shared), most.shared))


def padded(model: PreTrainedModel) -> Passes:
    """Return plain passes over whole inputs, those of a batch padded to the longest of them."""

    def lay_out(some: Requests, most: Limits) -> list[list[TreeRow]]:
        groups = rows_padded_together(model, chains(some))
        return [batch for group in groups for batch in batches(group, most.plain)]

    return Passes(forward.score_plain, lay_out)


def padded_to(length: int) -> Passes:
    """Return plain passes over whole inputs that are padded to a length, in tokens."""
    return Passes(forward.score_plain, lambda some, most: batches(pad(chains(some), length), most.plain))


def one_by_one() -> Passes:
    """Return plain passes over one whole input each."""
    return Passes(forward.score_plain, lambda some, most: batches(chains(some), 1))
