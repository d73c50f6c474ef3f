"""Texts that hide a word: pairs of a name and a word, and passwords between facts of people."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pocket.phrases import fact_document
from pocket.world import FOODS, PETS, World

NAMES = 140  # the most frequent ones, which are hardly ever more than one token; so are the words that are hidden:
HIDDEN = (*PETS, *FOODS)
WORDS = 4  # that one text hides


def names_of(world: World) -> tuple[str, ...]:
    """The first names and surnames that the world's text has most often."""
    weights = np.diff([0, *world.people_cumulative])
    often: Counter = Counter()
    for person, weight in zip(world.people, weights, strict=True):
        for name in person.name.split():
            often[name] += weight
    return tuple(name for name, _ in often.most_common(NAMES))


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
