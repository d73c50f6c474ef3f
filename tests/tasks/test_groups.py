"""The tasks of conf/task through the harness: two rows each, in the columns of the real data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitsure.config.derived_tasks import original_task
from bitsure.config.paths import CONF, project_path
from bitsure.config.schema import TaskSettings
from bitsure.metrics import measure
from bitsure.models.load import load_model
from tests.builders.composing import composed
from tests.builders.data_sets import write_data_set
from tests.builders.engines import hooked_lm
from tests.builders.marks import SHARED, needs_shared
from tests.builders.settings import METRIC

# Of the embedded world, without tasks, made on the spot.
NOT_OF_THE_HARNESS = ("pocket", "none", "retrieval", "open_questions", "open_second_turns")
OPTIONS = sorted(path.stem for path in (CONF / "task").glob("*.yaml") if path.stem not in NOT_OF_THE_HARNESS)
ADV_GLUE = "AI-Secure/adv_glue"
UNKNOWN = "Can't be determined"
PEOPLE = {"ans0": ["f", "girl"], "ans1": ["unknown", "unknown"], "ans2": ["m", "boy"]}
BBQ = {
    "example_id": 1,
    "question_polarity": "neg",
    "category": "Gender_identity",
    "answer_info": PEOPLE,
    "additional_metadata": {"stereotyped_groups": ["F"]},
    "context": "A girl and a boy sat an examination.",
    "question": "Who was bad at it?",
    "ans0": "The girl",
    "ans1": UNKNOWN,
    "ans2": "The boy",
}
STORY = {f"input_sentence_{i}": f"Sentence {i}." for i in range(1, 5)} | {
    "sentence_quiz1": "It rained.",
    "sentence_quiz2": "Ha.",
}
STRATEGY = {"inputs": "Q: Is it so? A:", "targets": ["No"], "multiple_choice_targets": ["Yes", "No"]}
# task → data set, configuration, split, two rows, the right choices of each
ROWS = {
    "bbq_ambig": (
        "oskarvanderwal/bbq",
        "All",
        "test",
        [BBQ | {"context_condition": "ambig", "label": 1}, BBQ | {"context_condition": "ambig", "label": 1, "example_id": 2}],
        [list(range(2, 12))] * 2,
    ),
    "bbq_disambig": (
        "oskarvanderwal/bbq",
        "All",
        "test",
        [BBQ | {"context_condition": "disambig", "label": 0}, BBQ | {"context_condition": "disambig", "label": 2}],
        [[0], [1]],
    ),
    "crows_pairs_english": (
        "jannalu/crows_pairs_multilingual",
        "english",
        "test",
        [{"sent_more": f"The {a} sat.", "sent_less": "The dog sat.", "bias_type": "age"} for a in ("cat", "fox")],
        [[0], [0]],
    ),
    "winogender_all": (
        "oskarvanderwal/winogender",
        "all",
        "test",
        [{"sentence": "S.", "pronoun": "she", "occupation": "cook", "participant": "guest", "label": i} for i in (0, 1)],
        [[0], [1]],
    ),
    "toxigen": (
        "skg/toxigen-data",
        "annotated",
        "test",
        [{"text": "Some text.", "toxicity_ai": ai, "toxicity_human": 3.0} for ai in (1.0, 4.0)],
        [[0], [1]],
    ),
    "ethics_utilitarianism": (
        "EleutherAI/hendrycks_ethics",
        "utilitarianism",
        "test",
        [{"activity": f"I ate {what}.", "baseline": "I starved."} for what in ("cake", "bread")],
        None,
    ),
    "mutual": (
        "EleutherAI/mutual",
        "mutual",
        "validation",
        [{"answers": a, "options": ["yes .", "no .", "ha .", "oh ."], "article": "m : hello .", "id": a} for a in "BD"],
        [[1], [3]],
    ),
    "xstorycloze_en": (
        "juletxara/xstory_cloze",
        "en",
        "eval",
        [STORY | {"story_id": str(i), "answer_right_ending": i} for i in (1, 2)],
        [[0], [1]],
    ),
    "adv_sst2": (
        ADV_GLUE,
        "adv_sst2",
        "validation",
        [{"sentence": f"it is {what} .", "label": i, "idx": i} for i, what in enumerate(("duII", "fuun"))],
        [[0], [1]],
    ),
    "adv_mnli_mismatched": (
        ADV_GLUE,
        "adv_mnli_mismatched",
        "validation",
        [{"premise": "He sat.", "hypothesis": "He stood.", "label": i, "idx": i} for i in (1, 2)],
        [[1], [2]],
    ),
    "adv_qnli": (
        ADV_GLUE,
        "adv_qnli",
        "validation",
        [{"question": "Who?", "sentence": "She did .", "label": i, "idx": i} for i in (0, 1)],
        [[0], [1]],
    ),
    "bigbench_strategyqa_multiple_choice": (
        "hails/bigbench",
        "strategyqa_zero_shot",
        "default",
        [STRATEGY | {"targets": ["Yes"], "multiple_choice_scores": [1, 0]}, STRATEGY | {"multiple_choice_scores": [0, 1]}],
        [[0], [1]],
    ),
    "longbench2_dialogue_history": (
        "recursal/longbench-v2",
        "dialogue_history_qa",
        "train",
        [{"context": "They spoke. " * 300, "question": "Who?", "choices": list("wxyz"), "answer": a} for a in (0, 2)],
        [[0], [2]],
    ),
}


def score(name: str, mirror: Path, tiny_model: Path):
    """The records of a task of the harness, its data from a mirror."""
    from bitsure.scoring.harness import evaluate_tasks
    from bitsure.tasks.harness_tasks import load_tasks

    folder = str(project_path("tasks/adv_glue")) if name.startswith("adv_") else None
    task = TaskSettings(name=name, names=[name], num_fewshot=0, include_path=folder)
    loaded = load_tasks(task, [name], str(mirror))[name]
    return evaluate_tasks(loaded, hooked_lm(*load_model(tiny_model, "float32")), task)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_task_scores_its_own_columns_and_names_the_right_choices(name, tiny_model, tmp_path):
    data, configuration, split, rows, gold = ROWS[name]
    write_data_set(tmp_path, data, dict.fromkeys(["train", split], rows), configuration)
    records = score(name, tmp_path, tiny_model)  # which compares with the harness's own accuracy
    assert len(records) == 2 and all(len(row.choices) == len(row.choice_logprobs) >= 2 for row in records)
    if gold is not None:
        assert [row.gold for row in records] == gold
    values = measure(records, METRIC)[name]
    assert 0 <= values["accuracy"].value <= 1 and 0 < values["confidence"].value <= 1


@needs_shared
@pytest.mark.usefixtures("some_harness_tasks")
def test_wikitext_has_the_harness_own_perplexity(tiny_model, tmp_path):
    """On two of its articles; words and bytes are those of the text before its spaces are mended."""
    text = (SHARED / "text" / "wikitext2-raw-test.txt").read_text()
    articles = [" = A = \n" + text[i : i + 6000] for i in (0, 200_000)]
    pages = [{"page": one} for one in articles]
    splits = {"train": pages[:1], "test": pages}
    write_data_set(tmp_path, "EleutherAI/wikitext_document_level", splits, "wikitext-2-raw-v1")
    rows = score("wikitext", tmp_path, tiny_model)
    assert [row.bytes for row in rows] == [len(one.encode()) for one in articles]
    assert all(" @" not in row.choices[0] and len(row.token_logprobs[0]) == row.choice_tokens[0] > 1024 for row in rows)
    values = {name: one.value for name, one in measure(rows, METRIC)["wikitext"].items()}
    nll, n_bytes = -sum(row.choice_logprobs[0] for row in rows), sum(row.bytes for row in rows)
    assert values["bits_per_byte"] == pytest.approx(nll / n_bytes / 0.6931471805599453)
    assert set(values) == {"nll", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"}


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_name_of_a_group_is_the_harness_own_and_fits(option):
    from bitsure.tasks.derivation import check_derivable
    from bitsure.tasks.task_names import check_scored, members, task_manager

    task = composed(f"task={option}").task
    manager = task_manager(task.include_path, include_defaults=True)
    for name in task.names:
        check_scored(manager, original_task(name))
        check_derivable(manager, name)
        assert members(manager, original_task(name))
