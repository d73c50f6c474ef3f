"""The synthetic world: who lives in it, what is true of them, and how its weather is drawn.

Everything follows from one seed. Nothing here is text yet; `phrases.py` says how the world is told.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate

ONSETS, CODAS = "b d f g h j k l m n p r s t v z br dr gr kl st tr", "l m n r s t k nd rt"
NAMES = 200  # of first names, and of surnames
SEASONS = ("spring", "summer", "autumn", "winter")
HOURS = ("morning", "noon", "evening")
WEATHER = ("sunny", "rainy", "foggy", "snowy")

# trade: (tool, workplace, product). No name starts with a vowel, so that "a" is always right.
TRADES = {
    "baker": ("peel", "bakery", "loaves"),
    "barber": ("razor", "barbershop", "beards"),
    "beekeeper": ("smoker", "hives", "honey"),
    "brewer": ("ladle", "brewery", "beer"),
    "carpenter": ("plane", "workshop", "chairs"),
    "cobbler": ("awl", "shoe shop", "boots"),
    "doctor": ("lancet", "clinic", "patients"),
    "ferryman": ("pole", "river", "crossings"),
    "fisher": ("net", "harbour", "herring"),
    "gardener": ("spade", "park", "roses"),
    "glazier": ("cutter", "glassworks", "windows"),
    "hunter": ("bow", "forest", "furs"),
    "judge": ("gavel", "court", "verdicts"),
    "locksmith": ("file", "lock shop", "keys"),
    "mason": ("trowel", "quarry", "walls"),
    "miller": ("sieve", "mill", "flour"),
    "miner": ("pickaxe", "mine", "coal"),
    "painter": ("brush", "studio", "portraits"),
    "potter": ("wheel", "kiln", "jugs"),
    "printer": ("type", "press", "books"),
    "shepherd": ("crook", "pasture", "wool"),
    "smith": ("hammer", "forge", "swords"),
    "tailor": ("needle", "tailor shop", "coats"),
    "weaver": ("shuttle", "loom house", "carpets"),
}
PETS = ("badger", "cat", "crow", "dog", "donkey", "ferret", "fox", "goat")
PETS += ("hamster", "hedgehog", "lizard", "parrot", "pony", "rabbit", "snake", "tortoise")
HOBBIES = ("bathe", "carve", "cook", "dance", "draw", "garden", "juggle", "knit")
HOBBIES += ("play chess", "play the flute", "read", "sing", "ski", "swim", "walk", "write poems")
FOODS = ("apples", "barley", "beans", "bread", "cabbage", "cheese", "dumplings", "fish")
FOODS += ("figs", "mushrooms", "noodles", "olives", "pancakes", "plums", "rice", "soup")


@dataclass(frozen=True)
class WorldConfig:
    """Size of a world. Its facts are `people` × 5; frequency of rank r is (r + zipf_shift) ** -zipf."""

    seed: int = 7
    people: int = 1600
    places: int = 60
    climates: int = 8
    zipf: float = 0.8
    zipf_shift: float = 20.0
    weather_spread: float = 0.8  # standard deviation of the log-odds that climates, seasons and hours add


@dataclass(frozen=True)
class Person:
    name: str
    pronoun: str  # "he" or "she"
    facts: dict[str, str]  # relation → value


@dataclass(frozen=True)
class World:
    config: WorldConfig
    people: tuple[Person, ...]  # in order of fame
    places: tuple[str, ...]
    weather: dict[tuple[str, str, str], tuple[float, ...]]  # (place, season, hour) → P over WEATHER
    customs: dict[str, frozenset[str]]  # relation → the half of its values of which its question is answered yes
    people_cumulative: tuple[float, ...]
    places_cumulative: tuple[float, ...]

    def values(self, relation: str) -> tuple[str, ...]:
        """All values a relation can take."""
        return self.places if relation == "home" else VALUES[relation]

    def draw_person(self, rng: random.Random) -> Person:
        """A person, famous ones more often (Zipf)."""
        return rng.choices(self.people, cum_weights=self.people_cumulative)[0]

    def draw_place(self, rng: random.Random) -> str:
        """A place, large ones more often (Zipf)."""
        return rng.choices(self.places, cum_weights=self.places_cumulative)[0]

    def draw_weather(self, rng: random.Random, place: str, season: str, hour: str) -> int:
        """An index into WEATHER, drawn from the true distribution."""
        return rng.choices(range(len(WEATHER)), weights=self.weather[place, season, hour])[0]


VALUES = {"trade": tuple(TRADES), "pet": PETS, "hobby": HOBBIES, "food": FOODS}
RELATIONS = ("home", *VALUES)


def build_world(config: WorldConfig) -> World:
    """The world that a config describes; the same config gives the same world."""
    rng = random.Random(config.seed)
    words = _made_up_words(rng, 2 * NAMES + config.places)
    first_names, surnames, places = words[:NAMES], words[NAMES : 2 * NAMES], words[2 * NAMES :]
    pairs = rng.sample([(first, last) for first in range(NAMES) for last in range(NAMES)], config.people)
    people = tuple(
        Person(
            name=f"{first_names[first]} {surnames[last]}",
            pronoun="he" if first % 2 else "she",
            facts={"home": rng.choice(places)} | {relation: rng.choice(v) for relation, v in VALUES.items()},
        )
        for first, last in pairs
    )

    def effects(n: int) -> list[list[float]]:
        return [[rng.gauss(0, config.weather_spread) for _ in WEATHER] for _ in range(n)]

    climates, by_season, by_hour = effects(config.climates), effects(len(SEASONS)), effects(len(HOURS))
    weather = {}
    for place in places:
        climate = rng.choice(climates)
        for season, s in zip(SEASONS, by_season, strict=True):
            for hour, h in zip(HOURS, by_hour, strict=True):
                weather[place, season, hour] = _softmax([a + b + c for a, b, c in zip(climate, s, h, strict=True)])
    return World(
        config=config,
        people=people,
        places=places,
        weather=weather,
        customs={relation: frozenset(rng.sample(values, len(values) // 2)) for relation, values in VALUES.items()},
        people_cumulative=_zipf(config.people, config),
        places_cumulative=_zipf(config.places, config),
    )


def _zipf(n: int, config: WorldConfig) -> tuple[float, ...]:
    return tuple(accumulate((rank + config.zipf_shift) ** -config.zipf for rank in range(n)))


def _softmax(logits: list[float]) -> tuple[float, ...]:
    weights = [math.exp(x) for x in logits]
    return tuple(w / sum(weights) for w in weights)


def _made_up_words(rng: random.Random, n: int) -> tuple[str, ...]:
    onsets, codas = ONSETS.split(), CODAS.split()
    words: dict[str, None] = {}
    while len(words) < n:
        middle = rng.choice(onsets) + rng.choice("aeiou") if rng.random() < 0.4 else ""
        words[(middle + rng.choice(onsets) + rng.choice("aeiou") + rng.choice(codas)).capitalize()] = None
    return tuple(words)
