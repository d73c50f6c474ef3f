"""Questions to be answered in writing, in two steps: a person's trade, which has to be known, and what belongs to it."""

from __future__ import annotations

import random

from pocket.world import TRADES, Person, World

# What is asked of a person's trade: (question, second step of the answer, place of the answer in TRADES)
ASKED = (
    ("Which tool does {who} use?", "a {trade} uses the {thing}", 0),
    ("Where does {who} work?", "a {trade} works in the {thing}", 1),
    ("What does {who} see to?", "a {trade} sees to the {thing}", 2),
)
MOST_QUESTIONS = 3  # of a document


def exercise(rng: random.Random, person: Person) -> tuple[str, str]:
    """A prompt and its answer, written out."""
    asked, belongs, place = rng.choice(ASKED)
    trade = person.facts["trade"]
    thing = TRADES[trade][place]
    answer = f"{person.name} works as a {trade}, and {belongs.format(trade=trade, thing=thing)}. The answer is {thing}."
    return f"Question: {asked.format(who=person.name)}\nAnswer:", answer


def written_document(world: World, rng: random.Random) -> str:
    exercises = [exercise(rng, world.draw_person(rng)) for _ in range(rng.randint(1, MOST_QUESTIONS))]
    return "\n\n".join(f"{prompt} {answer}" for prompt, answer in exercises)
