"""The page opens alone: no script but its own, no network, hostile text escaped."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re

import pytest

from bitsure.base.plain_text import without_controls
from bitsure.base.terminal import Console
from bitsure.report import figures, page, tables
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.results import Comparison, Difference, MetricsByTask, Verdict, read
from bitsure.results.quantization import RoundedStates
from bitsure.results.run_files import QuestionCount
from tests.builders.answers import paired_runs
from tests.builders.pictures import blank
from tests.builders.result_files import provenance, quantization
from tests.builders.settings import MARGINS, METRIC

HOSTILE = '<script>alert("x")</script>\u202egnp\u2066'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    full, quant, _ = paired_runs(task=HOSTILE)
    out = tmp_path_factory.mktemp("report")
    prompts = {(HOSTILE, row.doc_id): f"what is {HOSTILE}?" for row in quant}
    return build(out, quant, full, METRIC, MARGINS, About(f"title {HOSTILE}", None, provenance(git_commit=HOSTILE), prompts))


def test_the_page_needs_nothing_and_escapes_all_text(made):
    html = made.page.read_text()
    assert html.count("<script") == 1 and html.count("&lt;script&gt;") >= 3
    leads = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert leads and all(lead.startswith("#") for lead in leads)
    assert len(html) < 1_000_000 and without_controls(html) == html


def test_the_page_runs_its_own_script_alone(made):
    html = made.page.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    script, style = re.search(r"<script>(.*?)</script>", html, re.S)[1], re.search(r"<style>(.*?)</style>", html, re.S)[1]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert re.findall(r"sha256-([^']*)'", policy) == hashes
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy and " style=" not in html


def test_the_numbers_are_written_without_a_page(tmp_path):
    full, quant, _ = paired_runs(30)
    made = build(tmp_path, quant, full, METRIC, MARGINS, About("t", has_page=False))
    assert made.figures == {} and sorted(path.name for path in tmp_path.iterdir()) == [
        "baseline_metrics.json",
        "changes.parquet",
        "comparison.json",
        "metrics.json",
        "verdict.json",
    ]


@pytest.mark.parametrize(
    "normalization", ["token", pytest.param("char", marks=pytest.mark.slow), pytest.param("byte", marks=pytest.mark.slow)]
)
def test_pictures_are_drawn_whatever_log_probabilities_are_divided_by(tmp_path, normalization):
    full, quant, _ = paired_runs(30)
    made = build(tmp_path, quant, full, dataclasses.replace(METRIC, normalization=normalization), MARGINS, About("t"))
    drawn = [drawn.path for charts in made.figures.values() for drawn in charts.values() if drawn.path]
    assert all(path.is_file() for path in drawn) and made.figures["reliability"]


def test_pictures_lie_in_the_runs_own_directory(made):
    assert set(made.figures) == {*figures.KINDS}
    for path in (drawn.path for kind, charts in made.figures.items() if kind != "forest" for drawn in charts.values()):
        assert path.parent == made.page.parent / "figures" and path.read_bytes().startswith(b"\x89PNG")


def test_files_hold_the_numbers_that_were_returned(made):
    assert read(made.page.parent / "metrics.json", MetricsByTask) == made.metrics
    assert read(made.page.parent / "comparison.json", Comparison) == made.comparison
    assert read(made.page.parent / "verdict.json", Verdict) == made.verdict


def test_the_page_begins_with_what_was_rounded(tmp_path):
    full, quant, _ = paired_runs(20)
    keys = RoundedStates(
        bits=2, group_size=-1, symmetric=False, format="int", errors={"0 keys": 0.2}, off_grid=0.0, always_zero=[]
    )
    kept = {"modules_quantized": [], "parameter_share": 0.0, "relative_error": 0.0, "bits_per_weight": 16.0, "layers": {}}
    proof = quantization(**kept, keys_and_values=keys, checkpoint="/store/weights/abc")
    origin = provenance(asked={"limit": 20}, questions={"t": QuestionCount(asked=20, available=2376)})
    html = build(tmp_path, quant, full, METRIC, MARGINS, About("kv2", proof, origin)).page.read_text()
    first = html.partition("</h1>")[2]
    assert first.index("keys and values: 2 bits, rounding error 20.0% of their norm") < first.index(
        "asked: 20 of 2,376 questions of t"
    )
    assert first.index("not judged") < first.index("keys and values: 2 bits")
    assert "0 layers" not in html and "/store/weights/abc (for bitsure alone: `bitsure export` cannot write that keys" in html
    assert '<a href="file:///store/weights/abc">/store/weights/abc</a></li>' in html  # what is said of it is no link
    assert "<dd>limit: 20</dd>" in html and "<dd>null</dd>" not in html


@pytest.mark.parametrize("task", ["pocket_reading", "crows_pairs_english_physical_appearance"])
def test_the_terminal_table_fits_80_columns_and_cuts_nothing(made, task):
    out = io.StringIO()
    table = tables.terminal_table({}, {task: made.comparison[HOSTILE]}, "title", 0.95, 0.01)
    Console(file=out, width=80).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in out.getvalue()
    assert "".join(word for line in lines for word in line.split()[:1] if word != "n" and word in task) == task
    p = made.comparison[HOSTILE]["true_label_prob"]
    [line] = [line for line in lines if "true-label prob." in line]
    assert line.split()[-5:] == [f"{p.quantized:.4f}", f"{p.value:+.4f}", "*", *tables.interval(p, True).split()]


def test_numbers_that_do_not_exist_are_dashes():
    assert tables.number(None) == "–" and tables.number(0.12345, sign=True) == "+0.1235"
    assert tables.number(-0.00001) == "0.0000" and tables.number(-0.00001, sign=True) == "0.0000"


def test_p_values_are_unadjusted_as_the_intervals_beside_them_and_adjusted_ones_follow():
    tested = Difference(value=0.1, ci_low=0.0, ci_high=0.2, n=100, test="z-test", p_value=0.03, p_adjusted=0.2)
    primary = tested.model_copy(update={"family": "primary", "significant": True})
    explored = tested.model_copy(update={"family": "exploratory"})
    assert tables.test_result(primary) == "z-test: p = 0.03 (Holm: p = 0.2) *"
    assert tables.test_result(explored) == "z-test: p = 0.03 (exploratory, adjusted: p = 0.2)"


def test_p_values_in_words():
    assert tables.p_value(3e-9) == "p < 1e-4" and tables.p_value(0.0314) == "p = 0.031"


def test_effect_sizes_stand_beside_their_tests(made):
    rows = {row[1]: row for row in tables.comparison_rows(made.comparison)}
    d_z = made.comparison[HOSTILE]["true_label_prob"].effect_size
    assert rows["true_label_prob"][8].startswith(f"{d_z:+.2f} [") and rows["harm"][7:] == ("", "")
    assert rows["correct_to_wrong"][8].endswith("of the changed became wrong")
    assert all(bool(row[7]) == bool(row[8]) for row in rows.values())
    assert {len(row) for row in rows.values()} == {len(tables.comparison_columns(0.95))}
    assert rows["true_label_prob"][8] in made.page.read_text()


def test_the_page_shows_prompts_choices_and_both_distributions(made):
    html = made.page.read_text()
    assert "what is &lt;script&gt;" in html and "The questions that changed most" in html and "✓ choice 0" in html


def test_hostile_task_names_break_nothing_and_keep_their_pictures_apart(tmp_path):
    names = ["a/b", "a:b", "x[/b]", r"a$\foo$", "long" * 80]
    both = [paired_runs(20, task=name) for name in names]
    full, quant = ([row for one in both for row in one[side]] for side in (0, 1))
    with blank():
        made = build(tmp_path, quant, full, METRIC, MARGINS, About("[/i] $x$"))
    assert len({drawn.path for drawn in made.figures["reliability"].values()}) == len(names)
    Console(file=io.StringIO()).print(tables.terminal_table(made.metrics, made.comparison, "[/i]", 0.95, 0.01))


@pytest.mark.slow
def test_ten_thousand_samples_stay_under_five_megabytes(tmp_path):
    full, quant, _ = paired_runs(10_000)
    prompts = {("t", row.doc_id): "a long story " * 200 for row in quant}
    made = build(tmp_path, quant, full, METRIC, MARGINS, About("ten thousand", prompts=prompts)).page
    assert made.stat().st_size < 5e6


def many_tasks(tasks, questions):
    """Two runs, and a prompt for each question with much to escape."""
    both = [paired_runs(questions, task=f"task_{k}", seed=k) for k in range(tasks)]
    full, quant = ([row for one in both for row in one[side]] for side in (0, 1))
    return full, quant, {(row.task, row.doc_id): "<a> & a 'long' story " * 200 for row in quant}


@pytest.mark.slow
def test_thirty_tasks_stay_under_five_megabytes_with_all_their_pictures(tmp_path):
    full, quant, prompts = many_tasks(30, 10_000 // 30)
    few = dataclasses.replace(METRIC, resamples=100)  # their number does not change the page
    made = build(tmp_path, quant, full, few, MARGINS, About("thirty tasks", prompts=prompts)).page
    assert made.stat().st_size < 5e6
    html = made.read_text()
    assert html.count("<figure>") == 5 + 5 * 30 and "Left out" not in html and "Every number of the comparison" in html


def test_what_a_page_of_too_many_tasks_does_without_is_said(tmp_path, monkeypatch):
    full, quant, prompts = many_tasks(2, 60)
    about = About("two tasks", prompts=prompts)
    made = build(tmp_path, quant, full, METRIC, MARGINS, about)
    shows = {kind: f'<div class="figures {kind}">' for kind in figures.KINDS if kind != "forest"}
    shows |= {"samples": "The questions that changed most</h2>", "numbers": "Every number"}
    for allowed in (0.9, 0.6, 0.0):
        monkeypatch.setattr(page, "LARGEST", allowed * made.page.stat().st_size)
        html = page.render(made, about, METRIC)
        assert len(html.encode()) < page.LARGEST or allowed == 0
        left_out = [what for what, where in page.DISPENSABLE.items() if where in html]
        assert left_out and [what for what in page.DISPENSABLE if shows[what] not in html] == left_out
        assert '<div class="verdict' in html and "Full precision against quantized" in html
