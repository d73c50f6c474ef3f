"""A task's data is identified by the files that are really read, wherever they lie: a change of any of them is noticed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure.base.files import hash_file
from bitsure.base.store import Store
from bitsure.config.schema import TaskSettings
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.task_files import TaskFiles
from tests.builders.data_sets import ASKED_TASK, question_rows, write_data_set

FIELDS = ASKED_TASK.partition("dataset_path: org/asked\n")[2]


class Place:
    """A folder of tasks, a mirror, and folders outside of both."""

    def __init__(self, root: Path) -> None:
        self.root, self.tasks, self.mirror, self.outside = root, root / "tasks", root / "mirror", root / "outside"
        for folder in (self.tasks, self.mirror / "datasets", self.outside):
            folder.mkdir(parents=True)

    def questions(self, file: str, word: str) -> Path:
        """Write questions that begin with a word of three letters; files of two words have the same size."""
        path = self.outside / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, question_rows(word))))
        os.utime(path, ns=(1_700_000_000_000_000_000,) * 2)
        return path

    def task(self, data: str, rest: str = FIELDS, file: Path | None = None) -> None:
        """Write the YAML of the task."""
        (file or self.tasks / "asked.yaml").write_text(f"task: asked\n{data}\n{rest}")

    def asked(self) -> tuple[object, object, list[str]]:
        """Return the questions' key before the task is loaded and after, and the questions."""
        from bitsure.tasks.harness_tasks import load_tasks

        task = TaskSettings(name="own", names=["asked"], include_path=str(self.tasks), trust=True)
        questions = locate_questions(task, str(self.mirror))
        files = TaskFiles(questions, Store(self.root / "store"))
        before = questions.key("asked", files.contents("asked"), False)
        loaded = load_tasks(task, ["asked"], str(self.mirror))["asked"]
        files.record("asked", loaded.places, False)
        asked = [loaded.tasks["asked"].doc_to_text(doc) for doc in loaded.tasks["asked"].eval_docs]
        return before, questions.key("asked", files.contents("asked"), False), asked


def absolute_path(place: Place) -> Callable[[], object]:
    data = place.questions("data.jsonl", "one")
    place.task(f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}")
    return lambda: place.questions("data.jsonl", "two")


def pattern_with_one_file_more(place: Place) -> Callable[[], object]:
    place.questions("b.jsonl", "one")
    place.task(f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: '{place.outside}/*.jsonl'}}}}")
    return lambda: place.questions("a.jsonl", "two")


def folder_as_data_set(place: Place) -> Callable[[], object]:
    place.questions("set/test.jsonl", "one")
    place.task(f"dataset_path: {place.outside}/set")
    return lambda: place.questions("set/test.jsonl", "two")


def retargeted_link(place: Place) -> Callable[[], object]:
    link = place.tasks / "data.jsonl"
    link.symlink_to(place.questions("one.jsonl", "one"))
    place.task("dataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}")
    return lambda: (link.unlink(), link.symlink_to(place.questions("two.jsonl", "two")))


def linked_folder_of_tasks(place: Place) -> Callable[[], object]:
    place.questions("data.jsonl", "one")
    (place.tasks / "linked").symlink_to(place.outside)
    place.task("dataset_path: json\ndataset_kwargs: {data_files: {test: linked/data.jsonl}}")
    return lambda: place.questions("data.jsonl", "two")


def linked_folder_in_the_mirror(place: Place) -> Callable[[], object]:
    write_data_set(place.outside, "org/asked", {"test": question_rows("one")})
    (place.mirror / "datasets" / "org").symlink_to(place.outside / "datasets" / "org")
    place.task("dataset_path: org/asked")
    return lambda: write_data_set(place.outside, "org/asked", {"test": question_rows("two")})


def linked_folder_of_a_data_set(place: Place) -> Callable[[], object]:
    place.questions("data.jsonl", "one")
    folder = place.mirror / "datasets" / "org" / "asked"
    folder.mkdir(parents=True)
    files = "[{split: test, path: data/*}]"
    (folder / "README.md").write_text(f"---\nconfigs: [{{config_name: default, data_files: {files}}}]\n---\n")
    (folder / "data").symlink_to(place.outside)
    place.task("dataset_path: org/asked")
    return lambda: place.questions("data.jsonl", "two")


def included_settings(place: Place) -> Callable[[], object]:
    data = place.questions("data.jsonl", "one")
    common = place.outside / "common.yaml"
    place.task("dataset_path: json", FIELDS, common)
    place.task(f"include: {common}\ndataset_kwargs: {{data_files: {{test: {data}}}}}", "")
    return lambda: common.write_text(common.read_text().replace("'{{q}}'", "'two {{q}}'"))


def linked_yaml_beside_code(place: Place) -> Callable[[], object]:
    data = place.questions("data.jsonl", "one")
    place.task(
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}",
        FIELDS.replace("'{{q}}'", "!function utils.text"),
        place.outside / "asked.yaml",
    )
    code = place.outside / "utils.py"
    code.write_text("def text(doc): return 'one ' + doc['q']\n")
    (place.tasks / "asked.yaml").symlink_to(place.outside / "asked.yaml")
    return lambda: code.write_text("def text(doc): return 'two, ' + doc['q']\n")


def file_that_code_reads(place: Place) -> Callable[[], object]:
    data = place.questions("data.jsonl", "one")
    word = place.outside / "word"
    word.write_text("one ")
    place.task(
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}",
        FIELDS.replace("'{{q}}'", "!function utils.text"),
    )
    (place.tasks / "utils.py").write_text(
        f"from pathlib import Path\ndef text(doc): return Path({str(word)!r}).read_text() + doc['q']\n"
    )
    return lambda: word.write_text("two ")


def opened_by_code(text: str) -> Callable[[Place], Callable[[], object]]:
    """Return how to prepare a task whose code has a function `text` that takes the first word from TABLE or WORD."""

    def prepare(place: Place) -> Callable[[], object]:
        data, table, word = place.questions("data.jsonl", "one"), place.outside / "word.parquet", place.outside / "word"

        def write(content: str) -> None:
            pq.write_table(pa.table({"word": [content]}), table)
            word.write_text(content)
            for file in (table, word):
                os.utime(file, ns=(1_700_000_000_000_000_000,) * 2)

        write("one ")
        of_code = FIELDS.replace("'{{q}}'", "!function utils.text")
        place.task(f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}", of_code)
        (place.tasks / "utils.py").write_text(text.replace("TABLE", repr(str(table))).replace("WORD", repr(str(word))))
        return lambda: write("two ")

    return prepare


parquet_by_arrow = opened_by_code(
    "import pyarrow.parquet as pq\ndef text(doc): return pq.read_table(TABLE)['word'][0].as_py() + doc['q']\n"
)
parquet_by_pandas = opened_by_code("import pandas as pd\ndef text(doc): return pd.read_parquet(TABLE)['word'][0] + doc['q']\n")
file_read_at_import = opened_by_code("first = open(WORD).read()\ndef text(doc): return first + doc['q']\n")
file_read_late = opened_by_code(
    "seen = []\ndef text(doc):\n  seen.append(0)\n  return (open(WORD).read() if len(seen) > 3 else '') + doc['q']\n"
)


def file_of_prompts(place: Place) -> Callable[[], object]:
    data = place.questions("data.jsonl", "one")
    prompts = place.outside / "prompts.yaml"
    prompts.write_text("prompts: {p: {doc_to_text: 'one {{q}}', doc_to_target: ' a'}}")
    fields = FIELDS.replace("multiple_choice", "loglikelihood").replace("doc_to_choice: options\n", "")
    place.task(
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\nuse_prompt: {prompts}:p",
        fields.replace("acc", "perplexity"),
    )
    return lambda: prompts.write_text("prompts: {p: {doc_to_text: 'two {{q}}', doc_to_target: ' a'}}")


@pytest.mark.parametrize(
    "prepare",
    [
        absolute_path,
        pattern_with_one_file_more,
        folder_as_data_set,
        retargeted_link,
        linked_folder_of_tasks,
        linked_folder_in_the_mirror,
        linked_folder_of_a_data_set,
        included_settings,
        linked_yaml_beside_code,
        file_that_code_reads,
        parquet_by_arrow,
        parquet_by_pandas,
        file_read_at_import,
        file_read_late,
        file_of_prompts,
    ],
)
def test_a_change_of_any_file_that_is_read_gives_new_questions_and_another_key(tmp_path, prepare):
    place = Place(tmp_path)
    change = prepare(place)
    _, key, questions = place.asked()
    assert not any("two" in question for question in questions)
    assert place.asked() == (key, key, questions)
    change()
    before_loading, _, changed = place.asked()
    assert before_loading != key and any("two" in question for question in changed)


def test_data_sets_of_the_mirror_that_a_task_does_not_read_are_no_part_of_its_key(tmp_path):
    place = Place(tmp_path)
    write_data_set(place.mirror, "org/asked", {"test": question_rows("one")})
    place.task("dataset_path: org/asked")
    key = place.asked()[1]
    write_data_set(place.mirror, "org/other", {"test": question_rows("two")})
    assert place.asked()[0] == key


def test_files_outside_the_folder_are_named_with_their_hashes_also_where_a_link_leads(tmp_path):
    from bitsure.tasks.harness_tasks import load_tasks

    place = Place(tmp_path)
    data = place.questions("data.jsonl", "one")
    (place.tasks / "linked").symlink_to(place.outside)
    place.task("dataset_path: json\ndataset_kwargs: {data_files: {test: linked/data.jsonl}}")
    task = TaskSettings(name="own", names=["asked"], include_path=str(place.tasks))
    origin = load_tasks(task, ["asked"], None)["asked"].data["files"]
    read = {str(data), str(place.tasks / "linked" / "data.jsonl")}
    assert origin["sha256"] == {name: hash_file(Path(name)) for name in read}


def test_a_folder_named_relative_to_the_working_directory_is_another_one_elsewhere(tmp_path, monkeypatch):
    place = Place(tmp_path)
    place.task("dataset_path: set")
    questions = {}
    for word in ("one", "two"):
        (here := place.outside / word).mkdir()
        place.questions(f"{word}/set/test.jsonl", word)
        monkeypatch.chdir(here)
        questions[word] = place.asked()
    assert questions["one"][1] not in questions["two"][:2]
    assert all("two" in question for question in questions["two"][2])


def test_a_file_that_another_directorys_run_read_stands_where_this_run_reads_it(tmp_path):
    place = Place(tmp_path)
    data = place.questions("data.jsonl", "one")
    place.task(f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}")
    questions = locate_questions(TaskSettings(name="own", names=["asked"], include_path=str(place.tasks)), None)
    files = TaskFiles(questions, Store(tmp_path / "store"))
    files.record("asked", [str(data)], False)
    assert files.place_of(hash_file(data), str(tmp_path / "elsewhere.jsonl")) == str(data)
    assert files.place_of(hash_file(data), str(data)) == str(data)
    assert files.place_of("of no file", str(tmp_path / "elsewhere.jsonl")) == str(tmp_path / "elsewhere.jsonl")
