from __future__ import annotations

import json

import pytest

from bitsure.base.errors import UserError
from bitsure.records.harness_log import read_harness_log
from bitsure.records.record import to_records


def sample(doc_id=0, target="1", scores=((-1.5, False), (-0.5, True)), doc=None, choices=(" no", " yes")):
    arguments = {f"gen_args_{i}": {"arg_0": f"prompt {doc_id}", "arg_1": choice} for i, choice in enumerate(choices)}
    return {
        "doc_id": doc_id,
        "doc": doc or {},
        "target": target,
        "arguments": arguments,
        "resps": [[[str(logprob), str(greedy)]] for logprob, greedy in scores],
        "filtered_resps": [[str(logprob), str(greedy)] for logprob, greedy in scores],
        "doc_hash": f"d{doc_id}",
        "prompt_hash": f"p{doc_id}",
        "target_hash": f"t{doc_id}",
    }


def write(folder, *samples, name="samples_boolq_2026-01-02T03-04-05.678901.jsonl"):
    (folder / name).write_text("".join(json.dumps(one) + "\n" for one in samples))


def rows(folder):
    """The records of a folder's logs."""
    return to_records(read_harness_log(folder)[0])


def test_a_log_becomes_records(tmp_path):
    write(tmp_path, sample(), sample(1, target="no"))
    first, second = rows(tmp_path)
    assert (first.task, first.choices, first.gold) == ("boolq", ["no", "yes"], [1])
    assert first.choice_logprobs == [-1.5, -0.5] and first.choice_greedy == [False, True]
    assert first.choice_tokens is None and first.token_logprobs is None
    assert second.gold == [0] and second.task == "boolq"
    assert (second.doc_hash, second.prompt_hash, second.target_hash) == ("d1", "p1", "t1")
    assert read_harness_log(tmp_path)[1] == {("boolq", 0): "prompt 0", ("boolq", 1): "prompt 1"}


def test_the_log_of_a_continuation_has_one_choice(tmp_path):
    write(tmp_path, sample(target=" signs", scores=[(-2.5, False)], choices=[" signs"]), name="samples_lambada_openai.jsonl")
    [row] = rows(tmp_path)
    assert (row.choices, row.gold, row.choice_logprobs, row.choice_greedy) == (["signs"], [0], [-2.5], [False])


def test_questions_on_one_passage_are_a_cluster(tmp_path):
    docs = [{"passage": "a"}, {"passage": "a"}, {"passage": "b"}, {}]
    write(tmp_path, *(sample(i, doc=doc) for i, doc in enumerate(docs)))
    first, second, third, alone = (row.cluster for row in rows(tmp_path))
    assert first == second != third and alone == "p3"


def test_several_right_choices_come_from_the_document(tmp_path):
    write(tmp_path, sample(target="0", doc={"mc2_targets": {"labels": [1, 1]}}))
    assert rows(tmp_path)[0].gold == [0, 1]


@pytest.mark.parametrize(("acc", "gold"), [(1.0, 1), (0.0, 0)])
def test_digits_that_are_choices_too_are_read_as_the_accuracy_says(tmp_path, acc, gold):
    write(tmp_path, sample(target="1", choices=(" 1", " 2")) | {"acc": acc})  # the second choice is the more likely one
    assert rows(tmp_path)[0].gold == [gold]


def test_digits_that_are_choices_too_are_refused_without_an_accuracy(tmp_path):
    write(tmp_path, sample(target="1", choices=(" 1", " 2")))
    with pytest.raises(UserError, match=r"line 1: the target '1' .* may mean choice \[0\] or \[1\]"):
        read_harness_log(tmp_path)


def test_requests_are_read_by_their_numbers(tmp_path):
    many = sample(target="10", choices=[f" {name}" for name in "abcdefghijkl"], scores=[(-1 - i, False) for i in range(12)])
    write(tmp_path, many | {"arguments": dict(sorted(many["arguments"].items()))})  # 10 stands before 2
    [row] = rows(tmp_path)
    assert row.choices == list("abcdefghijkl") and row.choices[row.gold[0]] == "k"


def test_the_probability_of_all_right_choices_is_the_accuracy_of_mc2_alone(tmp_path):
    labels = {"mc2_targets": {"labels": [1, 0], "choices": ["no", "yes"]}}
    write(tmp_path, sample(target="0", doc=labels) | {"acc": 1 / (1 + 2.718281828459045)})
    assert rows(tmp_path)[0].gold == [0]
    labels["mc2_targets"]["labels"] = [1, 1]  # mc1 has the same document, and its own index
    write(tmp_path, sample(target="0", doc=labels) | {"acc": 0.0})
    assert rows(tmp_path)[0].gold == [0]


def test_a_line_that_stands_twice_counts_once_and_is_named(tmp_path, caplog):
    write(tmp_path, sample(), sample(1), sample(1))
    assert [row.doc_id for row in rows(tmp_path)] == [0, 1]
    assert "1 rows repeat a question" in caplog.text and "task boolq, question 1" in caplog.text


def test_a_list_of_right_choices_is_written_as_text(tmp_path):
    write(tmp_path, sample(target="[0, 1]"))
    assert rows(tmp_path)[0].gold == [0, 1]


def test_other_line_ends_and_half_characters_in_a_prompt_are_no_end_of_a_line(tmp_path):
    hostile = sample()
    for request in hostile["arguments"].values():
        request["arg_0"] = "a\u2028b \ud83d"
    (tmp_path / "samples_boolq.jsonl").write_text(json.dumps(hostile, ensure_ascii=False), errors="surrogatepass")
    assert "a\u2028b" in read_harness_log(tmp_path)[1]["boolq", 0]


def test_a_metric_beyond_every_number_is_none(tmp_path):
    write(tmp_path, sample() | {"acc": 10**400})
    assert len(rows(tmp_path)) == 1


def test_the_latest_file_of_a_task_counts(tmp_path):
    write(tmp_path, sample(), name="samples_boolq_2026-01-02T03-04-05.678901.jsonl")
    write(tmp_path, sample(7), name="samples_boolq_2026-02-02T03-04-05.678901.jsonl")
    assert [row.doc_id for row in rows(tmp_path)] == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"doc_id": 0, "doc"', "line 2 is truncated"),
        ("{}", "no doc_id, doc, target"),
        ("[]", "a list, not an object"),
        ("7", "a int, not an object"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        (json.dumps(sample() | {"doc_id": None}), "doc_id is None"),
        (json.dumps(sample() | {"doc_id": 2**70}), "doc_id is 1180591620717411303424"),
        (json.dumps(sample() | {"doc_id": "first"}), "doc_id is 'first'"),
        (json.dumps(sample() | {"doc_hash": None}), "doc_hash is None"),
        (json.dumps(sample() | {"doc_hash": "\ud800"}), "doc_hash is .* a text in ASCII"),
        (json.dumps(sample() | {"arguments": None}), "arguments is None"),
        (json.dumps(sample() | {"arguments": {}}), "no requests"),
        (json.dumps(sample() | {"arguments": [[None, None]]}), "a request is"),
        (json.dumps(sample() | {"resps": None}), "resps is None"),
        (json.dumps(sample() | {"resps": [[], []]}), "has no response"),
        (json.dumps(sample() | {"resps": [[["-1", "False"]]]}), "2 requests and 1 responses"),
        (json.dumps(sample(target=None)), "the target None is none of the choices"),
        (json.dumps(sample(target={"a": 1})), "is none of the choices"),
        (json.dumps(sample(target="-1")), "the target '-1' is none of the choices"),
        (json.dumps(sample(target="\u00b2")), "is none of the choices"),
        (json.dumps(sample(target="9" * 5000)), "is none of the choices"),
        (json.dumps(sample(target="[" * 5000)), "is none of the choices"),
        (json.dumps(sample(target="[0, [1]]")), "is none of the choices"),
        (json.dumps(sample(target="[]")), "is none of the choices"),
        (json.dumps(sample(target="maybe")), "the target 'maybe' is none of the choices"),
        (json.dumps(sample() | {"resps": [["a text"]]}), "no log-likelihoods of choices"),
        (json.dumps(sample(scores=(("x", False), (-1, True)))), "a response is no log-likelihood"),
        (json.dumps(sample(scores=((float("nan"), False), (-1, True)))), "not finite"),
    ],
)
def test_an_unreadable_line_is_an_error_that_names_it(tmp_path, text, message):
    write(tmp_path, sample())
    [path] = tmp_path.iterdir()
    path.write_text(path.read_text() + text)
    with pytest.raises(UserError, match=message):
        read_harness_log(tmp_path)


def test_an_empty_directory_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"holds no samples_\*\.jsonl"):
        read_harness_log(tmp_path)
