"""A metric of a user's own is measured, compared and tested as ours are, and one that does not fit is refused."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.metrics.own_metrics import check_own_metrics, code_hashes
from tests.builders.answers import paired_runs
from tests.builders.settings import METRIC

CODE = """
from functools import partial

import numpy as np

from bitsure.metrics import SumStatistic, mean


def double_confidence(questions):
    return 2 * questions.confidence


def correct_answers(questions):
    return questions.correct


def largest_confidence_of_wrong_answers(questions):
    return mean(lambda q: q.confidence, among=lambda q: 1 - q.correct)


def a_list(questions):
    return [1] * len(questions)


def one_number(questions):
    return 0.5


def a_number_of_each_choice(questions):
    return questions.p


def text(questions):
    return "high"


def nothing_known(questions):
    return np.full(len(questions), np.nan)


def times(questions, factor):
    return factor * questions.confidence


class Times:
    def __call__(self, questions):
        return times(questions, 2)


a_partial = partial(times, factor=2)
an_object = Times()
NO_FUNCTION = 1
"""


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    """Lets Python import the functions above as `metrics_of_a_user`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "metrics_of_a_user.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        yield


def settings(**own: str):
    return dataclasses.replace(METRIC, own={name: f"metrics_of_a_user.{function}" for name, function in own.items()})


def test_it_is_measured_compared_and_tested_as_ours_are():
    full, quantized, _ = paired_runs(60)
    chosen = settings(twice="double_confidence")
    check_own_metrics(chosen)
    measured, difference = measure(full, chosen)["t"], compare(full, quantized, chosen)["t"]
    twice, ours = measured["twice"], measured["confidence"]
    assert (twice.value, twice.ci_low, twice.n) == pytest.approx((2 * ours.value, 2 * ours.ci_low, 60))
    assert difference["twice"].value == pytest.approx(2 * difference["confidence"].value)
    assert difference["twice"].p_value == pytest.approx(difference["confidence"].p_value)
    assert difference["twice"].family == "exploratory" and difference["twice"].baseline == pytest.approx(twice.value)


def test_a_statistic_or_a_list_will_do():
    full, _, _ = paired_runs(60)
    values = measure(full, settings(wrong="largest_confidence_of_wrong_answers", one="a_list"))["t"]
    assert values["wrong"].value == values["confidence_wrong"].value and values["wrong"].n == values["confidence_wrong"].n
    assert values["one"].value == 1


def test_provenance_has_the_hash_of_the_code_of_whatever_can_be_called():
    names = {name: name for name in ("double_confidence", "a_partial", "an_object")}
    check_own_metrics(settings(**names))
    assert code_hashes(settings(**names)) == dict.fromkeys(names, hashlib.sha256(CODE.encode()).hexdigest())


@pytest.mark.parametrize("n", [20, 60])
def test_zeros_and_ones_have_the_intervals_of_accuracy(n):
    full, quantized, _ = paired_runs(n)
    chosen = settings(right="correct_answers", all_ones="a_list")
    measured, difference = measure(full, chosen)["t"], compare(full, quantized, chosen)["t"]
    assert measured["right"] == measured["accuracy"]
    assert measured["all_ones"].ci_low < 1 == measured["all_ones"].ci_high
    assert difference["right"].value == difference["accuracy"].value


def test_tasks_are_averaged():
    both = [row for task in "ab" for row in paired_runs(20, task=task)[0]]
    values = measure(both, settings(twice="double_confidence"))
    assert values["macro_average"]["twice"].value == pytest.approx(2 * values["macro_average"]["confidence"].value)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("x", "no_such_module.f", r"metric\.own\.x=no_such_module\.f: Python finds no module no_such_module"),
        ("x", "metrics_of_a_user.double_confidense", r"has no double_confidense\. Did you mean double_confidence"),
        ("x", "double_confidence", "needs a module and a name"),
        ("x", "metrics_of_a_user.NO_FUNCTION", "this is no function but int"),
        ("x", "metrics_of_a_user.one_number", r"returned shape \(\) for 4 questions; return a number of each, shape \(4,\)"),
        ("x", "metrics_of_a_user.a_number_of_each_choice", r"returned shape \(14,\) for 4 questions"),
        ("x", "metrics_of_a_user.text", "returned no numbers but str"),
        ("x", "metrics_of_a_user.nothing_known", "returned NaN for all of 4 questions"),
        ("accuracy", "metrics_of_a_user.a_list", r"metric\.own\.accuracy: bitsure has a metric of this name"),
        ("flip_rate", "metrics_of_a_user.a_list", "bitsure has a metric of this name"),
        ("brier_score_set", "metrics_of_a_user.a_list", "bitsure has a metric of this name"),
        ("temperature", "metrics_of_a_user.a_list", "bitsure has a metric of this name"),
        ("Top two", "metrics_of_a_user.a_list", "small letters, digits and underscores"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_scored(name, path, message):
    with pytest.raises(UserError, match=message):
        check_own_metrics(dataclasses.replace(METRIC, own={name: path}))


def test_an_error_inside_the_users_module_shows_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_metrics.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        check_own_metrics(dataclasses.replace(METRIC, own={"x": "broken_metrics.f"}))


def test_every_name_of_a_comparison_is_taken():
    full, quantized, _ = paired_runs(60)
    clustered = [dataclasses.replace(row, cluster=f"c{i // 5}") for i, row in enumerate(quantized)]
    names = {*measure(full, METRIC)["t"], *compare(full, clustered, METRIC)["t"]}
    for name in names:
        with pytest.raises(UserError, match="bitsure has a metric of this name"):
            check_own_metrics(dataclasses.replace(METRIC, own={name: "metrics_of_a_user.a_list"}))
    assert len(names) > 60 and np.all([name.islower() for name in names])
