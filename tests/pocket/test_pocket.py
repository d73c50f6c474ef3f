"""The embedded default is what its code makes, and asks what it says."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from bitsure.config.paths import PROJECT
from pocket import build, questions
from pocket.phrases import CUSTOMS, count_weather, documents, passage, story_ending
from pocket.sizes import SIZES
from pocket.world import TRADES, WEATHER, WorldConfig, build_world

MODELS = [
    "pocket-300k",
    "pocket-300k-seed1",
    "pocket-300k-seed2",
    "pocket-1m",
    "pocket-1m-seed1",
    "pocket-1m-seed2",
    "pocket-4m",
    "pocket-1m-tuned",
    "pocket-llama-1m",
]


@pytest.fixture(scope="module")
def world():
    return build_world(build.WORLD)


def rows(task):
    return [json.loads(line) for line in (PROJECT / "pocket" / "tasks" / f"{task}.jsonl").read_text().splitlines()]


def test_the_same_seed_makes_the_same_world(world):
    assert build_world(build.WORLD) == world
    assert build_world(WorldConfig(seed=8)).people != world.people


def test_weather_is_a_distribution_and_fame_falls(world):
    assert all(len(p) == len(WEATHER) and math.isclose(sum(p), 1) for p in world.weather.values())
    weights = np.diff([0, *world.people_cumulative])
    assert (np.diff(weights) < 0).all() and weights[0] > 5 * weights[-1]


def test_draws_follow_the_true_distribution(world):
    rng = random.Random(0)
    event, p = next(iter(world.weather.items()))
    drawn = np.bincount([world.draw_weather(rng, *event) for _ in range(20_000)], minlength=4) / 20_000
    assert np.abs(drawn - p).max() < 0.02


def test_a_passages_answers_follow_from_facts_and_customs(world):
    rng = random.Random(0)
    people = {person.name: person for person in world.people}
    relation_of = {custom.format(who=""): relation for relation, custom in CUSTOMS.items()}
    told = 0
    for _ in range(200):
        person, text, asked = passage(world, rng)
        [name] = [name for name in people if name in text]
        assert person.name == name
        for question, answer in asked:
            relation = relation_of[question.replace(name, "")]
            value = people[name].facts[relation]
            assert answer == (value in world.customs[relation])
            told += value in text
    assert 150 < told < 350  # of 600: some answers are told, the others have to be known


def test_half_of_the_values_follow_each_custom(world):
    for relation, chosen in world.customs.items():
        assert len(chosen) == len(world.values(relation)) // 2


def test_a_changed_ending_differs(world):
    person = world.people[0]
    other = "soup" if person.facts["food"] != "soup" else "rice"
    assert f"ate some {other}" in story_ending(person, {"food": other}) != story_ending(person)


@pytest.mark.parametrize("task", ["recall", "reading", "stories", "weather"])
def test_tasks_hold_a_thousand_questions_of_their_shape(task):
    found = rows(task)
    assert len(found) >= 1000
    for row in found:
        choices = row.get("choices", ["no", "yes"])
        assert 0 <= row["label"] < len(choices) == len(set(choices)) == (2 if task == "reading" else 4)
    labels = np.bincount([row["label"] for row in found])
    assert labels.min() > 0.1 * len(found)
    assert len({row.get("context", "") + row.get("passage", "") + str(row["label"]) for row in found}) > 0.9 * len(found)


@pytest.mark.parametrize("task", ["recall", "reading", "stories", "weather"])
def test_questions_name_the_person_or_place_that_they_share(task):
    found = rows(task)
    assert all(row["cluster"] in row.get("passage", row.get("context")) for row in found)
    assert 30 <= len({row["cluster"] for row in found}) < 700 < len(found)


def test_the_committed_questions_are_the_ones_that_the_code_makes(world):
    for make in (questions.recall, questions.reading, questions.stories, questions.write):
        assert rows(make.__name__) == make(world, build.QUESTION_SEED, build.QUESTIONS), make
    for make in (questions.pairs, questions.words):
        assert rows(make.__name__) == make(world, build.QUESTION_SEED, build.QUESTIONS_TO_FIND), make


def test_a_written_answer_follows_in_two_steps(world):
    people = {person.name: person for person in world.people}
    for row in rows("write"):
        trade = people[row["cluster"]].facts["trade"]
        assert row["answer"].startswith(f"{row['cluster']} works as a {trade}, and a {trade} ")
        assert row["answer"].rpartition(" answer is ")[2].rstrip(".") in TRADES[trade]


@pytest.mark.parametrize("task", ["pairs", "words"])
def test_what_is_to_be_found_stands_at_its_depth_and_so_do_the_other_choices_somewhere(task):
    for row in rows(task):
        key = f" {row['question'].rpartition('Answer: ')[2]} "
        told = row["text"].replace(". ", ".\n").splitlines()
        [place] = [i for i, sentence in enumerate(told) if f"{key}{row['choices'][row['label']]}." in f" {sentence}"]
        assert place / (len(told) - 1) == pytest.approx(row["depth"], abs=0.2)
        choices = row["choices"]
        if task == "pairs":  # the facts between passwords may have such words too, whichever is right
            assert all(sum(line.endswith(f" {choice}.") for line in told) == 1 for choice in choices)
        assert len(set(choices)) == 4 and all(choice in row["text"] for choice in choices)
        assert len(row["text"].split()) == pytest.approx(row["length"], abs=10)
    assert {row["depth"] for row in rows(task)} == {*questions.DEPTHS}


def test_the_chance_tasks_documents_tell_the_truth(world):
    found = rows("weather")
    for row in found[:50]:
        assert sum(row["p"]) == pytest.approx(1, abs=1e-5) and sum(row["seen"]) > 10
    # the answers are draws from p: their mean probability is that of draws, not of the likeliest
    drawn = np.mean([row["p"][row["label"]] for row in found])
    assert drawn == pytest.approx(np.mean([np.square(row["p"]).sum() for row in found]), abs=0.03)
    distance = np.mean([np.abs(np.array(row["seen"]) / sum(row["seen"]) - row["p"]).sum() / 2 for row in found])
    assert distance < 0.1


def test_weather_reports_are_counted_as_they_are_told(world):
    stream, told = documents(world, 9), Counter()
    texts = [next(stream) for _ in range(3000)]
    for text in texts:
        told.update(word.rstrip(".") for word in text.split() if word.rstrip(".") in WEATHER)
    counted = count_weather("</s>".join(texts))
    assert counted.total() == told.total() > 500
    by_kind = Counter()
    for (*_, kind), n in counted.items():
        by_kind[WEATHER[kind]] += n
    assert by_kind == told


def test_calibration_text_is_of_this_world_and_not_the_training_stream(world):
    text = (PROJECT / "pocket" / "text" / "calibration.txt").read_text()
    stream = documents(world, build.CALIBRATION_SEED)
    assert text.startswith("\n\n".join(next(stream) for _ in range(20)))
    assert build.CALIBRATION_SEED not in (build.CORPUS_SEED, build.TOKENIZER_SEED)


def test_the_text_to_score_is_another_stream_of_this_world(world):
    lines = (PROJECT / "pocket" / "text" / "scored.jsonl").read_text().splitlines()
    stream = documents(world, build.SCORED_SEED)
    assert [json.loads(line)["text"] for line in lines[:20]] == [next(stream) for _ in range(20)] and len(lines) == 1000
    seeds = (build.SCORED_SEED, build.CALIBRATION_SEED, build.CORPUS_SEED, build.TOKENIZER_SEED, build.SECOND_SEED)
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_small_and_in_half_precision(name):
    from safetensors import safe_open

    path = PROJECT / "pocket" / "models" / name
    config = json.loads((path / "config.json").read_text())
    size = SIZES[name.partition("-seed")[0].removesuffix("-tuned")]
    widths = (config["hidden_size"], config["ffn_dim" if size.family == "opt" else "intermediate_size"])
    assert config["model_type"] == size.family and widths == (size.width, size.feed_forward)
    assert all(width % (128 if size.family == "opt" else 256) == 0 for width in widths)  # groups, and llama.cpp's blocks
    with safe_open(path / "model.safetensors", "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118 - not a dict
    log = [json.loads(line) for line in (path / "training.jsonl").read_text().splitlines()]
    ends = [line["step"] for line in log if line["step"] in (line["of"], size.cycle.stop)]
    cycles = {"pocket-4m": [size.steps, build.SECOND_STEPS], build.TUNED: [build.TUNING_STEPS]}
    assert ends == cycles.get(name, [size.cycle.stop or size.steps])
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    from bitsure.models.tokenizers import load_tokenizer
    from pocket import train

    monkeypatch.setattr(torch, "set_flush_denormal", lambda flush: True)  # of the whole process, other tests' too
    for name, few in (("WINDOWS_PER_STEP", 2), ("WINDOW", 16)):
        monkeypatch.setattr(train, name, few)
    tokenizer = load_tokenizer(PROJECT / "pocket" / "models" / "pocket-300k")
    windows = np.random.default_rng(0).integers(3, 1000, (6, 16)).astype(np.uint16)

    def new():
        return train.Training(train.build_model(SIZES["pocket-300k"], tokenizer, 0), tokenizer, windows, 0)

    whole, stopped, later = new(), new(), new()
    assert whole.run(tmp_path / "whole.jsonl")
    assert not stopped.run(tmp_path / "parts.jsonl", seconds=0)
    stopped._step()
    stopped.save(tmp_path / "unfinished.pt")
    later.load(tmp_path / "unfinished.pt")
    assert later.step == 1 and later.run(tmp_path / "parts.jsonl")
    assert later.losses == whole.losses and len(whole.losses) == 3


@pytest.mark.parametrize("task", ["recall", "stories", "weather"])
def test_the_llama_is_above_guessing(task):

    from bitsure.models.load import load_model

    model, tokenizer = load_model(PROJECT / "pocket" / "models" / "pocket-llama-1m", "float32")
    right = 0
    for row in rows(task)[:40]:
        context = len(tokenizer(row["context"])["input_ids"])
        scores = []
        for choice in row["choices"]:
            ids = torch.tensor(tokenizer(f"{row['context']} {choice}")["input_ids"])
            with torch.no_grad():
                logprobs = torch.log_softmax(model(ids[None]).logits[0, context - 1 : -1], -1)
            scores.append(logprobs.gather(1, ids[context:, None]).sum())
        right += int(torch.stack(scores).argmax()) == row["label"]
    assert right > 16  # guessing gets 10 of 40, and hardly ever more than 16


def test_the_family_fits_into_30_megabytes():
    assert sum(path.stat().st_size for path in (PROJECT / "pocket").rglob("*") if path.is_file()) < 30e6


def test_any_other_text_can_be_read():
    from bitsure.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(PROJECT / "pocket" / "models" / "pocket-1m")
    text = "Größe: 5 µm — 日本語\n\t{}"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
