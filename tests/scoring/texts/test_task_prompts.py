"""The prompts and right answers of tasks as a text: the very tokens that the tasks' scoring reads, in their context."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import ModelSettings, ScoringSettings, TaskSettings
from bitsure.config.text import TextSettings
from bitsure.models.locate import locate_model
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scorer import Scorer
from bitsure.scoring.texts.task_prompts import TaskPrompts
from bitsure.scoring.texts.text_scorer import TextScorer
from tests.builders.tokenizers import CHAT_TEMPLATE, byte_tokenizer


def scorers(model_path, include_path, store, names, **changes) -> tuple[Scorer, TextScorer, ScoredModel]:
    source = locate_model(ModelSettings(path=str(model_path)), None)
    task = TaskSettings(**{"name": "own", "names": names, "include_path": str(include_path)} | changes)
    store, nowhere = Store(store), Path("/dev/null")
    scorer = Scorer(locate_questions(task, None), ScoringSettings(), "float32", store, nowhere)
    text = TextScorer(TaskPrompts(scorer), scorer.setup, source, store, nowhere)
    return scorer, text, ScoredModel(source)


def of(rows: pa.Table, task: str) -> pa.Table:
    return rows.filter(pc.equal(rows["task"], task))


@pytest.fixture
def chat_model(tiny_model, tmp_path) -> Path:
    """The tiny model with a chat template."""
    path = shutil.copytree(tiny_model, tmp_path / "chat")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("changes", [{}, {"num_fewshot": 2, "limit": 6, "chat_template": True}])
def test_answers_have_the_log_probabilities_of_the_tasks_own_scoring(chat_model, own_tasks, tmp_path, changes):
    names = ["tiny_pets", "tiny_last", "tiny_pages"]
    scorer, text, model = scorers(chat_model, own_tasks, tmp_path / "store", names, **changes)
    rows, records = text.score(model, None, "full precision"), scorer.score(model, None, "full precision").to_pylist()
    assert set(rows["task"].to_pylist()) == {f"text/{name}/{part}" for name in names[:2] for part in ("prompts", "answers")}
    for name in names[:2]:
        answers = of(rows, f"text/{name}/answers")
        for record in (record for record in records if record["task"] == name):
            right = record["gold"][0]
            logprobs = answers.filter(pc.equal(answers["document"], record["doc_id"]))["logprob"].to_pylist()
            assert logprobs == pytest.approx(record["token_logprobs"][right], abs=1e-4)
    made_from = text.made_from(model, rows)
    assert set(made_from) == set(rows["task"].to_pylist())
    assert len({str(each) for each in made_from.values()}) == 1
    assert text.origin(model).tokens == len(rows)


def test_every_token_of_a_prompt_but_the_first_is_scored_and_bytes_are_those_of_the_text(tiny_model, own_tasks, tmp_path):
    _, text, _ = scorers(tiny_model, own_tasks, tmp_path, ["tiny_pets"])
    cut = text.cut(Memo())
    rows = [json.loads(line) for line in (own_tasks / "pets.jsonl").read_text().splitlines()]
    assert [len(window) for window in cut.windows] == sorted(len(window) for window in cut.windows)
    tokenizer = byte_tokenizer()
    for window in cut.windows:
        row = rows[int(window.documents[0])]
        words = f"{row['q']} {row['options'][row['gold']]}"
        assert window.tokens[-len(window.scored) :].tolist() == tokenizer.encode(words)[-len(window.scored) :]
        assert sum(window.n_bytes) == len(words.encode()) - len(tokenizer.decode(window.tokens[:1]).encode())


def test_questions_of_one_passage_are_one_document(tiny_model, own_tasks, tmp_path):
    rows = [{"q": f"Question {i}:", "passage": f"{i // 2}", "options": ["cat", "dog"], "gold": i % 2} for i in range(6)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    yaml = (own_tasks / "tiny_pets.yaml").read_text().replace("pets", "pairs")
    (tmp_path / "tiny_pairs.yaml").write_text(yaml)
    _, text, _ = scorers(tiny_model, tmp_path, tmp_path / "store", ["tiny_pairs"])
    windows = text.cut(Memo()).windows
    assert sorted(int(window.documents[0]) for window in windows) == [0, 0, 2, 2, 4, 4]


def test_other_prompts_have_a_key_of_their_own_before_and_after_they_are_read(tiny_model, own_tasks, tmp_path):
    _, text, model = scorers(tiny_model, own_tasks, tmp_path, ["tiny_pets"])
    _, other, _ = scorers(tiny_model, own_tasks, tmp_path, ["tiny_pets"], num_fewshot=1)
    assert text.key(model) != other.key(model)
    text.score(model, None, "full precision")
    _, again, _ = scorers(tiny_model, own_tasks, tmp_path, ["tiny_pets"])
    assert not again.missing(model)


def test_whole_texts_have_no_prompts(tiny_model, own_tasks, tmp_path):
    _, text, _ = scorers(tiny_model, own_tasks, tmp_path, ["tiny_pages"])
    with pytest.raises(UserError, match="tiny_pages are whole texts or written answers"):
        text.cut(Memo())


def test_settings_without_effect_are_refused():
    with pytest.raises(UserError, match=r"text=tasks: text.limit has no effect"):
        TextSettings(name="tasks", limit=100)
