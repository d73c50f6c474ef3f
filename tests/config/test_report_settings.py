"""The settings of a report: conf/, and what the run itself was given."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.report_settings import read_report_settings


def test_a_runs_own_settings_hold_unless_others_are_named(tmp_path):
    config = tmp_path / "config.yaml"
    assert read_report_settings()[0].n_bins == read_report_settings(config)[0].n_bins == 15  # there is no such file
    config.write_text("metric: {n_bins: 7, seed: 3}\nverdict: {accuracy_margin: 0.05}\nother: ${oc.env:HOME}\n")
    metric, verdict = read_report_settings(config)
    assert (metric.n_bins, metric.seed, metric.resamples, verdict.accuracy_margin) == (7, 3, 1000, 0.05)
    metric, verdict = read_report_settings(config, "paper_compat")
    assert metric.n_bins == 15 and metric.paper_compat and verdict.accuracy_margin == 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: {normalization: '${oc.env:HOME}'}", r"metric\.normalization=\$\{oc\.env:HOME\}: .* holds values only"),
        ("metric: {normalization: ['${oc.env:HOME}']}", "holds values only"),
        ("metric: {n_bins: many}", "config.yaml: metric: Value 'many'"),
        ("metric: {n_bins: 0}", "config.yaml: metric.n_bins=0: must be 1 or more"),
        ("metric: {colour: red}", "config.yaml: metric: Key 'colour' not in"),
        ("metric: !!python/object/apply:os.system [true]", "is no run's config.yaml"),
        ("[1", "is no run's config.yaml"),
        ("metric: 5", "config.yaml: metric is no group of settings"),
        ("", "holds no groups of settings"),
        ("metric: &a [*a]", "no deep nesting and no aliases"),
        ("metric: " + "[" * 100_000, "no deep nesting and no aliases"),
        ("\udcff", "it is not UTF-8"),
    ],
)
def test_a_config_that_is_not_plain_settings_is_refused(tmp_path, text, message):
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        read_report_settings(config)


def test_an_unknown_metric_option_is_refused(tmp_path):
    with pytest.raises(UserError, match="--metric none: allowed are paper_compat, standard"):
        read_report_settings(tmp_path / "config.yaml", "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "defaults: [standard, _self_]\nn_bin: 3\n",
            r"metric/mine\.yaml: metric\.n_bin: no such setting\. Did you mean metric\.n_bins\?",
        ),
        ("defaults: [standard, _self_]\nn_bins: many\n", r"metric/mine\.yaml: .*Value 'many' .*metric\.n_bins"),
        ("defaults: [standard, _self_]\nn_bins: 0\n", r"metric/mine\.yaml: metric\.n_bins=0: must be 1 or more"),
        ("defaults: [nothing]\n", r"metric/mine\.yaml: .*Could not load 'metric/nothing'"),
        ("n_bins: [3\n", r"metric/mine\.yaml: while parsing a flow sequence .*line 1"),
    ],
)
def test_a_mistake_in_an_option_of_the_users_own_names_its_file_and_key(tmp_path, text, message):
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_report_settings(tmp_path / "config.yaml", "mine", tmp_path)
