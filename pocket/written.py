"""Questions to be answered in writing, in two steps: what belongs to a person's trade, and sums."""

from __future__ import annotations

import random
from itertools import product

from pocket.world import TRADES, Person, World

# What is asked of a person's trade: (question, second step of the answer, place of the answer in TRADES)
ASKED = (
    ("Which tool does {who} use?", "a {trade} uses the {thing}", 0),
    ("Where does {who} work?", "a {trade} works in the {thing}", 1),
    ("What does {who} see to?", "a {trade} sees to the {thing}", 2),
)
# What is added, and taken away again, is one of the digits; no result is below 0.
SUMS = tuple((a, b, c) for a, b, c in product(range(1, 10), repeat=3) if c <= a + b)
MOST_QUESTIONS = 3  # of a document


def trade_exercise(rng: random.Random, person: Person) -> tuple[str, str]:
    """A question on a person's trade, which has to be known, and its answer written out."""
    asked, belongs, place = rng.choice(ASKED)
    trade = person.facts["trade"]
    thing = TRADES[trade][place]
    answer = f"{person.name} works as a {trade}, and {belongs.format(trade=trade, thing=thing)}. The answer is {thing}."
    return asked.format(who=person.name), answer


def sum_exercise(a: int, b: int, c: int) -> tuple[str, str]:
    """A sum of three digits, and its answer written out."""
    answer = f"{a} + {b} is {a + b}, and {a + b} - {c} is {a + b - c}. The answer is {a + b - c}."
    return f"What is {a} + {b} - {c}?", answer


def prompt(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def trades_document(world: World, rng: random.Random) -> str:
    return _document([trade_exercise(rng, world.draw_person(rng)) for _ in range(rng.randint(1, MOST_QUESTIONS))])


def sums_document(rng: random.Random) -> str:
    return _document([sum_exercise(*rng.choice(SUMS)) for _ in range(rng.randint(1, MOST_QUESTIONS))])


def _document(exercises: list[tuple[str, str]]) -> str:
    return "\n\n".join(f"{prompt(question)} {answer}" for question, answer in exercises)
