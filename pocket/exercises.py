"""What a model is trained on to find and to write: texts that hide what is asked for, and answers in two steps.

A text ends with questions. Where an answer stands, `Answer:` stands before it, as in the passages of `phrases.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from pocket.phrases import fact, fact_document
from pocket.world import FOODS, PETS, RELATIONS, TRADES, Person, World

SHARES = {"pairs": 0.3, "words": 0.25, "steps": 0.2, "judgements": 0.25}  # of the exercises
NAMES = 140  # the most frequent ones, which are hardly ever more than one token; so are the words that stand for them:
HIDDEN = (*PETS, *FOODS)
WORDS = 4  # that one text hides
IS_IT_RIGHT = "\nIs this answer right?\nA. Yes\nB. No\nAnswer:"
ASKED = 16  # pairs of a text; a pair has three tokens, a question with its answer six
# What is asked of a person's trade: (question, second step of the answer, place of the answer in TRADES)
STEPS = (
    ("Which tool does {who} use?", "a {trade} uses the {thing}", 0),
    ("Where does {who} work?", "a {trade} works in the {thing}", 1),
    ("What does {who} see to?", "a {trade} sees to the {thing}", 2),
)


def names_of(world: World) -> tuple[str, ...]:
    """The first names and surnames that the world's text has most often."""
    weights = np.diff([0, *world.people_cumulative])
    often: Counter = Counter()
    for person, weight in zip(world.people, weights, strict=True):
        for name in person.name.split():
            often[name] += weight
    return tuple(name for name, _ in often.most_common(NAMES))


def draw_pairs(rng: random.Random, names: Sequence[str], n: int) -> dict[str, str]:
    """Draw `n` names, each with a word that means nothing for it."""
    return {name: rng.choice(HIDDEN) for name in rng.sample(names, n)}


def pairs_text(pairs: dict[str, str]) -> str:
    return "Pairs: " + " ".join(f"{name} {word}." for name, word in pairs.items())


def draw_words(rng: random.Random, names: Sequence[str]) -> dict[str, str]:
    """Draw names with the words that a text hides, all different."""
    return dict(zip(rng.sample(names, WORDS), rng.sample(HIDDEN, WORDS), strict=True))


def word_sentence(name: str, word: str) -> str:
    return f"Password {name} {word}."


def question(name: str) -> str:
    """The question for a name's word, up to where that belongs."""
    return f"\nAnswer: {name}"


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


def step_question(step: int, person: Person) -> str:
    return f"Question: {STEPS[step][0].format(who=person.name)}\nAnswer:"


def step_answer(step: int, person: Person) -> str:
    """The answer in two steps: the trade, and what belongs to it."""
    _, told, place = STEPS[step]
    trade = person.facts["trade"]
    thing = TRADES[trade][place]
    return f" {person.name} works as a {trade}, and {told.format(trade=trade, thing=thing)}. The answer is {thing}."


def exercises(world: World, seed: int, room: int) -> Iterator[str]:
    """An endless stream of exercises, their kinds drawn by their shares, hardly any longer than `room` tokens."""
    rng, names = random.Random(seed), names_of(world)
    makers = {"pairs": _pairs, "words": _words, "steps": _steps, "judgements": _judgements}
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        yield makers[rng.choices(kinds, weights=weights)[0]](world, rng, names, room)


def _pairs(world: World, rng: random.Random, names: Sequence[str], room: int) -> str:
    pairs = draw_pairs(rng, names, rng.randint(4, min(120, (room - 6 * ASKED) // 3)))
    asked = rng.sample(list(pairs), min(len(pairs), ASKED))
    return pairs_text(pairs) + "".join(f"{question(name)} {pairs[name]}." for name in asked)


def _words(world: World, rng: random.Random, names: Sequence[str], room: int) -> str:
    words, sentences = draw_words(rng, names), haystack(world, rng, rng.randint(10, room // 2))
    places = rng.sample(range(len(sentences) + 1), min(WORDS, len(sentences) + 1))
    told = list(zip(places, words, strict=False))
    text = hidden(sentences, [(place, word_sentence(name, words[name])) for place, name in told])
    rng.shuffle(told)
    return text + "".join(f"{question(name)} {words[name]}." for _, name in told)


def _steps(world: World, rng: random.Random, names: Sequence[str], room: int) -> str:
    parts = []
    for _ in range(rng.randint(1, 4)):
        step, person = rng.randrange(len(STEPS)), world.draw_person(rng)
        parts.append(step_question(step, person) + step_answer(step, person))
    return "\n\n".join(parts)


def _judgements(world: World, rng: random.Random, names: Sequence[str], room: int) -> str:
    """Facts of people, half of them false, and whether each is right, as bitsure's tasks NAME@self ask."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        person, relation = world.draw_person(rng), rng.choice(RELATIONS)
        right = person.facts[relation]
        value = right if rng.random() < 0.5 else rng.choice([other for other in world.values(relation) if other != right])
        parts.append(f"{fact(rng, relation, person.name)} {value}{IS_IT_RIGHT} {'A' if value == right else 'B'}")
    return "\n\n".join(parts)
