"""The pocket tasks as questions: the rows of the JSONL files that the harness's YAML reads.

`cluster` names the person or place that a question is about: what a model knows of them, it knows for all their questions.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

from pocket import hidden_words, written
from pocket.phrases import WEATHER_REPORTS, fact, passage, story_ending, story_opening
from pocket.world import RELATIONS, VALUES, WEATHER, World

PAIRS_LENGTHS = (16, 32, 64, 128, 224)  # words
WORDS_LENGTHS = (48, 96, 192, 320)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def recall(world: World, seed: int, n: int) -> list[dict]:
    """Facts of people, famous ones more often: the beginning of a sentence and four values for its end."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        person, relation = world.draw_person(rng), rng.choice(RELATIONS)
        answer = person.facts[relation]
        wrong = rng.sample([v for v in world.values(relation) if v != answer], 3)
        row = {"context": fact(rng, relation, person.name)} | _shuffled(rng, answer, wrong)
        rows.append(row | {"cluster": person.name})
    return rows


def reading(world: World, seed: int, n: int) -> list[dict]:
    """A yes/no question on a passage about a person's day."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        person, text, questions = passage(world, rng)
        question, answer = questions[0]
        rows.append({"passage": text, "question": question, "label": int(answer), "cluster": person.name})
    return rows


def stories(world: World, seed: int, n: int) -> list[dict]:
    """How a day goes on: one ending in which all is as it was told or is known, three with one thing wrong."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        person = world.draw_person(rng)
        opening = story_opening(rng, person, rng.sample(list(VALUES), rng.randint(0, 3)))
        wrong: list[str] = []
        while len(wrong) < 3:
            relation = rng.choice(list(VALUES))
            other = rng.choice([value for value in VALUES[relation] if value != person.facts[relation]])
            if (ending := story_ending(person, {relation: other})) not in wrong:
                wrong.append(ending)
        rows.append({"context": opening} | _shuffled(rng, story_ending(person), wrong) | {"cluster": person.name})
    return rows


def weather(world: World, seed: int, n: int, seen: Counter) -> list[dict]:
    """Truly random events: `p` is the distribution that the answer was drawn from, `seen` how often training text said each."""
    rng = random.Random(seed)
    reports = [(report, *event) for report in WEATHER_REPORTS for event in world.weather]
    rows = []
    for report, *event in rng.sample(reports, n):
        place, season, hour = event
        rows.append(
            {
                "context": report.format(place=place, season=season, hour=hour),
                "choices": list(WEATHER),
                "label": world.draw_weather(rng, *event),
                "p": [round(p, 6) for p in world.weather[place, season, hour]],
                "seen": [seen[*event, i] for i in range(len(WEATHER))],
                "cluster": place,
            }
        )
    return rows


def write(world: World, seed: int, n: int) -> list[dict]:
    """Questions to be answered in two steps: a person's trade, which has to be known, and what belongs to it."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        person = world.draw_person(rng)
        prompt, answer = written.exercise(rng, person)
        rows.append({"question": prompt, "answer": answer, "cluster": person.name})
    return rows


def pairs(world: World, seed: int, n: int) -> list[dict]:
    """Pairs of a name and a word, of which one is asked for: `n` questions for each length and depth."""
    rng, names, rows = random.Random(seed), hidden_words.names_of(world), []
    for _, length, depth in product(range(n), PAIRS_LENGTHS, DEPTHS):
        size = length // 2
        asked = round(depth * (size - 1))
        answer, *others = rng.sample(hidden_words.HIDDEN, len(hidden_words.HIDDEN))
        values = others[:3] + rng.choices(others[3:], k=size - 4)  # how often a word stands there does not tell the right one
        rng.shuffle(values)
        told = dict(zip(rng.sample(names, size), [*values[:asked], answer, *values[asked:]], strict=True))
        question = {"text": hidden_words.pairs_text(told), "question": hidden_words.question(list(told)[asked])}
        choices = _shuffled(rng, answer, others[:3])
        rows.append(question | choices | {"length": length, "depth": depth})
    return rows


def words(world: World, seed: int, n: int) -> list[dict]:
    """The words of four names hidden between facts, of which one is asked for: `n` questions for each length and depth."""
    rng, names, rows = random.Random(seed), hidden_words.names_of(world), []
    for _, length, depth in product(range(n), WORDS_LENGTHS, DEPTHS):
        told = hidden_words.draw_words(rng, names)
        sentences = hidden_words.haystack(world, rng, length - hidden_words.WORDS * 3)  # words of a sentence that tells one
        place = round(depth * len(sentences))
        others = rng.sample([i for i in range(len(sentences) + 1) if i != place], hidden_words.WORDS - 1)
        hidden = [
            (at, hidden_words.word_sentence(name, word))
            for at, (name, word) in zip([place, *others], told.items(), strict=True)
        ]
        asked, answer = next(iter(told.items()))
        question = {"text": hidden_words.hidden(sentences, hidden), "question": hidden_words.question(asked)}
        choices = _shuffled(rng, answer, [word for word in told.values() if word != answer])
        rows.append(question | choices | {"length": length, "depth": depth})
    return rows


def _shuffled(rng: random.Random, answer: str, wrong: list[str]) -> dict:
    choices = [answer, *wrong]
    rng.shuffle(choices)
    return {"choices": choices, "label": choices.index(answer)}
