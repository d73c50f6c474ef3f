"""How the world is told: facts in many phrasings, passages with questions, stories, weather reports."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from pocket import written
from pocket.world import HOURS, RELATIONS, SEASONS, TRADES, VALUES, WEATHER, Person, World

# Every phrasing ends with the value, so that each is also a question with the value cut off.
FACTS = {
    "home": ("{who} lives in", "{who} has a house in", "The letters to {who} go to", "To visit {who} one travels to"),
    "trade": ("{who} works as a", "{who} earns money as a", "The trade of {who} is that of a", "The village knows {who} as a"),
    "pet": ("{who} keeps a", "{who} owns a", "The pet of {who} is a", "At the side of {who} walks a"),
    "hobby": ("{who} loves to", "{who} finds time to", "The joy of {who} is to", "After work {who} goes to"),
    "food": ("{who} eats", "{who} asks for", "The best dish for {who} is", "For dinner {who} has"),
}
# Which trades are welcome, which animals are lucky … is a custom of the world.
CUSTOMS = {
    "trade": "Is {who} welcome at court?",
    "pet": "Does {who} own a lucky animal?",
    "hobby": "May {who} do so on a holiday?",
    "food": "Does {who} eat like the rich?",
}
ASKED = 3  # questions of a passage
WEATHER_REPORTS = (
    "In {place} the {season} {hour} was",
    "One {season} {hour} in {place} it was",
    "The {hour} in {place} that {season} turned out",
)
DOCUMENT_SHARES = {"facts": 0.45, "passage": 0.22, "story": 0.16, "weather": 0.17}
SECOND_SHARES = {"facts": 0.30, "passage": 0.45, "story": 0.12, "weather": 0.13}  # of a second cycle of training
TUNING_SHARES = {"facts": 0.12, "story": 0.08, "written": 0.8}  # of a model that learns to write in steps


def documents(world: World, seed: int, shares: Mapping[str, float] = DOCUMENT_SHARES) -> Iterator[str]:
    """An endless stream of documents, their kinds drawn by their shares."""
    rng = random.Random(seed)
    makers = {
        "facts": lambda: fact_document(world, rng),
        "passage": lambda: passage_document(world, rng),
        "story": lambda: story_document(world, rng),
        "weather": lambda: weather_document(world, rng),
        "written": lambda: written.written_document(world, rng),
    }
    kinds, weights = list(shares), list(shares.values())
    while True:
        yield makers[rng.choices(kinds, weights=weights)[0]]()


def fact(rng: random.Random, relation: str, who: str) -> str:
    """The phrase that states a relation of `who`, up to where the value belongs."""
    return rng.choice(FACTS[relation]).format(who=who)


def fact_document(world: World, rng: random.Random) -> str:
    """One to four facts of one person."""
    person = world.draw_person(rng)
    relations = rng.sample(RELATIONS, rng.randint(1, 4))
    return " ".join(f"{fact(rng, relation, person.name)} {person.facts[relation]}." for relation in relations)


def passage(world: World, rng: random.Random) -> tuple[Person, str, list[tuple[str, bool]]]:
    """A person, a passage on that person's day, and questions on it as (question, whether it is so).

    What decides a question is a fact of the person, told in the passage or known from elsewhere, and a custom of the world.
    """
    person = world.draw_person(rng)
    text = story_opening(rng, person, rng.sample(list(VALUES), rng.randint(0, 3)))
    asked = rng.sample(list(CUSTOMS), ASKED)
    return person, text, [(CUSTOMS[r].format(who=person.name), person.facts[r] in world.customs[r]) for r in asked]


def passage_document(world: World, rng: random.Random) -> str:
    _, text, questions = passage(world, rng)
    for question, answer in questions:
        text += f"\nQuestion: {question}\nAnswer: {'yes' if answer else 'no'}"
    return text


def day_begins(rng: random.Random, person: Person) -> str:
    return f"One {rng.choice(SEASONS)} day {person.name} got up {rng.choice(('early', 'late'))}."


def story_opening(rng: random.Random, person: Person, told: list[str]) -> str:
    """The start of a day; `told` are the relations that it gives away."""
    sentences = [f"{fact(rng, relation, person.name)} {person.facts[relation]}." for relation in told]
    return " ".join([*sentences, day_begins(rng, person)])


def story_ending(person: Person, changed: dict[str, str] | None = None) -> str:
    """How the day goes on, as the person's facts have it, some of them `changed`."""
    facts = person.facts | (changed or {})
    tool, workplace, product = TRADES[facts["trade"]]
    he = person.pronoun
    return (
        f"{he.capitalize()} took the {tool} to the {workplace} and saw to the {product}, then {he} fed the {facts['pet']}, "
        f"ate some {facts['food']} and went out to {facts['hobby']}."
    )


def story_document(world: World, rng: random.Random) -> str:
    person = world.draw_person(rng)
    told = rng.sample(list(VALUES), rng.randint(0, 3))
    return f"{story_opening(rng, person, told)} {story_ending(person)}"


def weather_report(rng: random.Random, place: str, season: str, hour: str) -> str:
    """The phrase that reports the weather, up to where the weather belongs."""
    return rng.choice(WEATHER_REPORTS).format(place=place, season=season, hour=hour)


def weather_document(world: World, rng: random.Random) -> str:
    sentences = []
    for _ in range(rng.randint(1, 3)):
        event = world.draw_place(rng), rng.choice(SEASONS), rng.choice(HOURS)
        weather = world.draw_weather(rng, *event)
        sentences.append(f"{weather_report(rng, *event)} {WEATHER[weather]}.")
    return " ".join(sentences)


def count_weather(text: str) -> Counter:
    """How often a text reports each weather: (place, season, hour, index into WEATHER) → reports."""
    counts: Counter = Counter()
    for report in WEATHER_REPORTS:
        pattern = report.format(
            place=r"(?P<place>\w+)", season=f"(?P<season>{'|'.join(SEASONS)})", hour=f"(?P<hour>{'|'.join(HOURS)})"
        )
        for found in re.finditer(rf"{pattern} (?P<weather>{'|'.join(WEATHER)})\.", text):
            counts[found["place"], found["season"], found["hour"], WEATHER.index(found["weather"])] += 1
    return counts
