"""What is known of a model after it was tried once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def once_a_model(ask: Callable[[PreTrainedModel], T]) -> Callable[[PreTrainedModel], T]:
    """Return a function that asks once for each model and then knows the answer, as long as the model is in memory."""
    answers: WeakKeyDictionary[PreTrainedModel, T] = WeakKeyDictionary()

    def known(model: PreTrainedModel) -> T:
        if model not in answers:
            answers[model] = ask(model)
        return answers[model]

    return known
