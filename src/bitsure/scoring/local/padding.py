"""What a batch's padded length may change in a model, so that a question's score depends on that question alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitsure.scoring.local.rows import TreeRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BY_LENGTH = ("dynamic", "longrope")  # rotary positions whose factors transformers chooses by the longest input of a batch


def rotary_types(config: Any) -> dict[str, int]:
    """Return the kinds of rotary positions of a model whose factors depend on the longest input of a batch.

    Args:
        config: The config of a transformers model.

    Returns:
        Kind, such as `longrope` → the longest input, in tokens, up to which its factors are those of any shorter input.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    of_layers = [of_layer for of_layer in rope.values() if isinstance(of_layer, Mapping)]  # where layers differ, as in Gemma 3
    kinds = {}
    for settings in of_layers or [rope]:
        kind = str(settings.get("rope_type") or settings.get("type"))
        original: Any = settings.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        if any(name in kind for name in BY_LENGTH):
            kinds[kind] = int(original or getattr(text, "max_position_embeddings", 0))
    return kinds


def rows_padded_together(model: PreTrainedModel, rows: Sequence[TreeRow]) -> list[list[TreeRow]]:
    """Divide rows so that padding one to the length of another of its group changes no rotary factor, the longest first.

    Args:
        model: The model.
        rows: Chains.
    """
    limit = min(rotary_types(model.config).values(), default=None)
    if limit is None:
        return [list(rows)]
    groups: dict[int, list[TreeRow]] = {}
    for row in rows:
        groups.setdefault(len(row) if len(row) > limit else limit, []).append(row)
    return [groups[length] for length in sorted(groups, reverse=True)]


@contextmanager
def state_restored(model: PreTrainedModel) -> Iterator[None]:
    """Undo what a pass changes in modules with computed buffers: dynamic rotary factors stay those of the longest input."""
    computed = [module for module in model.modules() if module._non_persistent_buffers_set]
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in computed]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).update(attributes)
            module._buffers.update(buffers)


def pad(rows: Sequence[TreeRow], length: int) -> list[TreeRow]:
    """Return chains padded to a length, in tokens, as in a batch with a row that long."""
    return [replace(row, tokens=[*row.tokens, *[0] * (length - len(row))]) for row in rows]
