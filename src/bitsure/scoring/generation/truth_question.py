"""Whether an answer is true, put to the model that wrote it: P(True).

Reference: Kadavath et al. 2022; the question's words are those of lm-polygraph's PTrue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

TRUTH_QUESTION = (
    "Question: {prompt}\n Possible answer:{answer}\n Is the possible answer:\n (A) True\n (B) False\n The possible answer is:"
)
TRUE_OR_FALSE = (" True", " False")


def truth_requests(answers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the context and the continuation of each of TRUE_OR_FALSE, answer after answer.

    Args:
        answers: The whole prompt, and the text, of each answer. A question that is too long loses its beginning.
    """
    contexts = [TRUTH_QUESTION.format(prompt=prompt, answer=answer) for prompt, answer in answers]
    return [(context, reply) for context in contexts for reply in TRUE_OR_FALSE]


def probabilities_of_true(logprobs: Sequence[float]) -> list[float]:
    """Return the probability of True, among True and False, of each answer.

    Args:
        logprobs: The log-probabilities of `truth_requests`, nats.
    """
    pairs = zip(logprobs[::2], logprobs[1::2], strict=True)
    return [1 / (1 + math.exp(min(false - true, 700.0))) for true, false in pairs]
