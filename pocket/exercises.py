"""What a model is trained on to find and to write: texts that hide what is asked for, and answers in two steps.

A text ends with questions. Where an answer stands, `Answer:` stands before it, as in the passages of `phrases.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from pocket.phrases import fact_document
from pocket.world import FOODS, PETS, TRADES, Person, World

KINDS = ("pairs", "words", "steps")
HIDDEN = (*PETS, *FOODS)  # one token each
MOST_PAIRS = 80
HAYSTACK = (10, 240)  # words
WORDS = 4  # that one text hides
# What is asked of a person's trade: (question, second step of the answer, place of the answer in TRADES)
STEPS = (
    ("Which tool does {who} use?", "a {trade} uses the {thing}", 0),
    ("Where does {who} work?", "a {trade} works in the {thing}", 1),
    ("What does {who} see to?", "a {trade} sees to the {thing}", 2),
)


def names_of(world: World) -> tuple[str, ...]:
    """First names and surnames of the world, in a fixed order."""
    return tuple(sorted({word for person in world.people for word in person.name.split()}))


def draw_pairs(rng: random.Random, names: Sequence[str], n: int) -> dict[str, str]:
    """Draw `n` names, each with a word that means nothing for it."""
    return {name: rng.choice(HIDDEN) for name in rng.sample(names, n)}


def pairs_text(pairs: dict[str, str]) -> str:
    return "Pairs: " + " ".join(f"{name}: {word}." for name, word in pairs.items())


def pair_question(name: str) -> str:
    """The question for a pair, up to where its word belongs."""
    return f"\nQuestion: {name}?\nAnswer: {name}:"


def draw_words(rng: random.Random, names: Sequence[str]) -> dict[str, str]:
    """Draw names whose words a text hides, all different."""
    return dict(zip(rng.sample(names, WORDS), rng.sample(HIDDEN, WORDS), strict=True))


def haystack(world: World, rng: random.Random, words: int) -> list[str]:
    """Sentences of the world, until they have as many words."""
    sentences: list[str] = []
    while True:
        for part in fact_document(world, rng).split(". "):
            if sum(len(sentence.split()) for sentence in sentences) >= words:
                return sentences
            sentences.append(f"{part.rstrip('.')}.")


def hidden(sentences: Sequence[str], told: Sequence[tuple[int, str]]) -> str:
    """The sentences with others inserted, each before the sentence of a given index."""
    at = {index: sentence for index, sentence in told}
    return " ".join(part for i in range(len(sentences) + 1) for part in (at.get(i), *sentences[i : i + 1]) if part)


def word_sentence(name: str, word: str) -> str:
    return f"The word of {name} is {word}."


def word_question(name: str) -> str:
    """The question for a hidden word, up to where it belongs."""
    return f"\nQuestion: The word of {name}?\nAnswer: The word of {name} is"


def step_question(step: int, person: Person) -> str:
    return f"Question: {STEPS[step][0].format(who=person.name)}\nAnswer:"


def step_answer(step: int, person: Person) -> str:
    """The answer in two steps: the trade, and what belongs to it."""
    _, told, place = STEPS[step]
    trade = person.facts["trade"]
    thing = TRADES[trade][place]
    return f" {person.name} works as a {trade}, and {told.format(trade=trade, thing=thing)}. The answer is {thing}."


def exercises(world: World, seed: int) -> Iterator[str]:
    """An endless stream of exercises, equally many of each kind."""
    rng, names = random.Random(seed), names_of(world)
    makers = {"pairs": _pairs, "words": _words, "steps": _steps}
    while True:
        yield makers[rng.choice(KINDS)](world, rng, names)


def _pairs(world: World, rng: random.Random, names: Sequence[str]) -> str:
    pairs = draw_pairs(rng, names, rng.randint(4, MOST_PAIRS))
    asked = rng.sample(list(pairs), rng.randint(2, min(len(pairs), 8)))
    return pairs_text(pairs) + "".join(f"{pair_question(name)} {pairs[name]}." for name in asked)


def _words(world: World, rng: random.Random, names: Sequence[str]) -> str:
    words, sentences = draw_words(rng, names), haystack(world, rng, rng.randint(*HAYSTACK))
    places = rng.sample(range(len(sentences) + 1), min(WORDS, len(sentences) + 1))
    told = list(zip(places, words, strict=False))
    text = hidden(sentences, [(place, word_sentence(name, words[name])) for place, name in told])
    rng.shuffle(told)
    return text + "".join(f"{word_question(name)} {words[name]}." for _, name in told)


def _steps(world: World, rng: random.Random, names: Sequence[str]) -> str:
    parts = []
    for _ in range(rng.randint(1, 4)):
        step, person = rng.randrange(len(STEPS)), world.draw_person(rng)
        parts.append(step_question(step, person) + step_answer(step, person))
    return "\n\n".join(parts)
