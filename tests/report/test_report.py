"""The page opens alone: no script, no network, hostile text escaped."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess

import pytest

from bitsure.report import About, build, tables
from bitsure.terminal import Console
from tests.metrics.test_metrics import METRIC
from tests.test_compare import runs
from tests.test_verdict import MARGINS

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    full, quant, _ = runs(task=HOSTILE)
    out = tmp_path_factory.mktemp("report")
    prompts = {(HOSTILE, row.doc_id): f"what is {HOSTILE}?" for row in quant}
    return build(out, quant, full, METRIC, MARGINS, About(f"title {HOSTILE}", None, {"command": HOSTILE}, prompts))


def test_the_page_needs_nothing_and_escapes_all_text(made):
    page = made.page.read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") >= 3
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(page) < 1_000_000


def test_pictures_lie_in_the_runs_own_directory(made):
    assert set(made.figures) == {"reliability", "risk_coverage", "shift", "deferral"}
    for [picture] in (found.values() for found in made.figures.values()):
        assert picture.parent == made.page.parent / "figures" and picture.read_bytes().startswith(b"\x89PNG")


def test_files_hold_the_numbers_that_were_returned(made):
    assert json.loads((made.page.parent / "metrics.json").read_text()) == made.metrics
    assert json.loads((made.page.parent / "comparison.json").read_text()) == made.comparison
    assert json.loads((made.page.parent / "verdict.json").read_text()) == made.verdict


def test_the_terminal_table_fits_80_columns_and_cuts_nothing(made):
    out = io.StringIO()
    table = tables.terminal_table({}, {"pocket_reading": made.comparison[HOSTILE]}, "title", 0.95, 0.01)
    Console(file=out, width=80).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in out.getvalue()
    p = made.comparison[HOSTILE]["true_label_prob"]
    [line] = [line for line in lines if "true-label prob." in line]
    assert line.split()[-5:] == [f"{p['quantized']:.4f}", f"{p['value']:+.4f}", "*", *tables.interval(p, True).split()]


def test_numbers_that_do_not_exist_are_dashes():
    assert tables.number(None) == "–" and tables.number(0.12345, sign=True) == "+0.1235"
    assert tables.p_value(3e-9) == "p < 1e-4" and tables.p_value(0.0314) == "p = 0.031"


def test_the_page_shows_prompts_choices_and_both_distributions(made):
    page = made.page.read_text()
    assert "what is &lt;script&gt;" in page and "The questions that changed most" in page and "✓ choice 0" in page


def test_hostile_task_names_break_nothing_and_keep_their_pictures_apart(tmp_path):
    names = ["a/b", "a:b", "x[/b]", r"a$\foo$", "long" * 80]
    both = [runs(20, task=name) for name in names]
    full, quant = ([row for one in both for row in one[side]] for side in (0, 1))
    made = build(tmp_path, quant, full, METRIC, MARGINS, About("[/i] $x$"))
    assert len({path for path in made.figures["reliability"].values()}) == len(names)
    Console(file=io.StringIO()).print(tables.terminal_table(made.metrics, made.comparison, "[/i]", 0.95, 0.01))


def test_ten_thousand_samples_stay_under_five_megabytes(tmp_path):
    full, quant, _ = runs(10_000)
    prompts = {("t", row.doc_id): "a long story " * 200 for row in quant}
    page = build(tmp_path, quant, full, METRIC, MARGINS, About("ten thousand", prompts=prompts)).page
    assert page.stat().st_size < 5e6


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium on this machine")
def test_a_real_browser_shows_it_whole(made, tmp_path):
    """Headless, without scripts and network: no text is wider than a phone's screen, and nothing hostile ran."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --user-data-dir={tmp_path} --window-size=390,900"
    command = ["chromium", *flags.split(), "--dump-dom", made.page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert "The questions that changed most" in dom and dom.count("<img") == 4 and "<script" not in dom
    picture = tmp_path / "page.png"
    subprocess.run([*command[:-2], f"--screenshot={picture}", made.page.as_uri()], capture_output=True, timeout=90, check=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
